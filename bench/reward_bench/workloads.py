"""Token ids that every engine scores: synthetic ones with known sharing, and real text."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reward_client import CONTRACT, Tokenizer
from reward_export.conversations import conversations

Row = NDArray[np.int32]
SEED = 20_240_501

DESCRIPTIONS = {
    "a": "best-of-8: 160 shared tokens + 8 x 32..64",
    "b": "best-of-4: 128 shared tokens + 4 x 32..64",
    "c": "8 independent rows of 47..244 tokens",
    "d": "8 full rows of 256 tokens, nothing shared",
    "e": "1 full row of 256 tokens",
    "shuffled": "4 groups of 160 shared tokens + 4 x 32..64, all 16 rows shuffled",
    "real": "32 real conversations of mixed length, one row each",
    "long": "real long chats, best-of-8: every row full, windows shifted by left truncation",
    "turns": "a real chat from its first turn on, best-of-8 at each reply: 17 requests in a row",
}


def requests() -> dict[str, list[list[Row]]]:
    """The requests of each workload, in order, each the rows of one batch."""
    return {**{name: [rows] for name, rows in workloads().items()}, "turns": chat_turns()}


def workloads() -> dict[str, list[Row]]:
    """Rows of each workload of one request: unpadded int32 ids, the same at every call."""
    rng = np.random.default_rng(SEED)

    def ids(n: int) -> Row:
        return rng.integers(0, CONTRACT.pad_token_id, n, dtype=np.int32)

    def group(shared: int, n_candidates: int) -> list[Row]:
        context = ids(shared)
        return [np.concatenate([context, ids(int(n))]) for n in rng.integers(32, 65, n_candidates)]

    groups = [row for _ in range(4) for row in group(160, 4)]
    return {
        "a": group(160, 8),
        "b": group(128, 4),
        "c": [ids(int(n)) for n in np.linspace(47, 244, 8)],
        "d": [ids(256) for _ in range(8)],
        "e": [ids(256)],
        "shuffled": [groups[i] for i in rng.permutation(len(groups))],
        "real": _real_rows(32),
        "long": _long_chat(8),
    }


def n_unique(rows: Sequence[Row]) -> int:
    """Tokens that differ: nodes of the rows' prefix tree, counted here without the graph."""
    return len({row[: end + 1].tobytes() for row in rows for end in range(len(row))})


def _real_rows(n_rows: int) -> list[Row]:
    """Conversations cut at different turns."""
    tokenizer = Tokenizer()
    return [
        tokenizer.encode("\n".join(dialogue.turns[: 2 + 3 * (i % 5)]))
        for i, dialogue in enumerate(conversations()[:n_rows])
    ]


def _long_chat(n_candidates: int) -> list[Row]:
    """A context of more than 256 tokens, which each candidate cuts at another place."""
    tokenizer = Tokenizer()
    dialogues = conversations()
    context = "\n".join(turn for dialogue in dialogues[:4] for turn in dialogue.turns)
    return [
        tokenizer.encode(f"{context}\n{dialogue.turns[5]}")
        for dialogue in dialogues[4:][:n_candidates]
    ]


def chat_turns(n_candidates: int = 8) -> list[list[Row]]:
    """Best-of-N at each reply of one chat, whose context grows until the window cuts it.

    The candidates are the chat's own reply and turns of other chats.
    """
    tokenizer = Tokenizer()
    chat, *others = sorted(conversations(), key=lambda dialogue: -len(dialogue.turns))
    replies = range(1, len(chat.turns), 2)
    return [
        [
            tokenizer.encode("\n".join([*chat.turns[:i], dialogue.turns[i % len(dialogue.turns)]]))
            for dialogue in (chat, *others[: n_candidates - 1])
        ]
        for i in replies
    ]
