"""Groups and rows of text from real conversations, the same for the same seed."""

import json
from importlib import resources

import numpy as np

from reward_export.conversations import conversations

Texts = tuple[str, list[str]]  # a context and its candidates
N_CANDIDATES = 8
N_TURNS = 6  # of a context
MIN_CHARACTERS = 2000  # surely more than 256 tokens


def all_dialogues() -> list[list[str]]:
    """The 7,168 dialogues of chitchat-dataset, turn by turn."""
    text = (resources.files("chitchat_dataset") / "dataset.json").read_text("utf-8")
    return [
        [" ".join(message["text"] for message in turn) for turn in dialogue["messages"]]
        for dialogue in json.loads(text).values()
    ]


def long_groups(n_groups: int, seed: int) -> list[Texts]:
    """Contexts of real dialogues, each with its next turn and seven turns of other dialogues."""
    dialogues = all_dialogues()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(dialogues))
    turns = [turn for dialogue in dialogues for turn in dialogue[1:]]
    groups: list[Texts] = []
    for index in order:
        dialogue = dialogues[index]
        contexts = ["\n".join(dialogue[:end]) + "\n" for end in range(1, len(dialogue))]
        ends = [end for end, context in enumerate(contexts, 1) if len(context) > MIN_CHARACTERS]
        if ends:
            others = [turns[i] for i in rng.integers(0, len(turns), N_CANDIDATES - 1)]
            groups.append((contexts[ends[0] - 1], [dialogue[ends[0]], *others]))
        if len(groups) == n_groups:
            break
    return groups


def short_groups(n_groups: int, seed: int, n_candidates: int = N_CANDIDATES) -> list[Texts]:
    """Six turns of a dialogue, its next turn, and turns of other dialogues, seven by default."""
    dialogues = conversations()
    rng = np.random.default_rng(seed)
    turns = [turn for dialogue in dialogues for turn in dialogue.turns]
    groups = []
    for index in rng.integers(0, len(dialogues), n_groups):
        own = dialogues[index].turns
        others = [turns[i] for i in rng.integers(0, len(turns), n_candidates - 1)]
        groups.append(("\n".join(own[:6]) + "\n", [own[6], *others]))
    return groups


def distinct_groups(n_groups: int, seed: int) -> list[Texts]:
    """Groups like those of `short_groups`, but each from a dialogue of its own."""
    long_enough = [one for one in all_dialogues() if len(one) > N_TURNS]
    rng = np.random.default_rng(seed)
    turns = [turn for dialogue in long_enough for turn in dialogue[1:]]
    groups: list[Texts] = []
    for index in rng.permutation(len(long_enough))[:n_groups]:
        own = long_enough[index]
        others = [turns[i] for i in rng.integers(0, len(turns), N_CANDIDATES - 1)]
        groups.append(("\n".join(own[:N_TURNS]) + "\n", [own[N_TURNS], *others]))
    return groups


def bulk_texts(n_requests: int, seed: int, n_rows: int = 16) -> list[list[str]]:
    """The beginnings of dialogues, two to eight turns each, one text per row."""
    dialogues = conversations()
    rng = np.random.default_rng(seed + 1)
    return [
        [
            "\n".join(dialogues[i].turns[: rng.integers(2, 9)])
            for i in rng.integers(0, len(dialogues), n_rows)
        ]
        for _ in range(n_requests)
    ]
