"""What rows and groups are made of, on real dialogues."""

from collections import Counter

import pytest

from reward_export.conversations import conversations
from reward_text import FORMATS
from reward_train import chitchat
from reward_train.dialogues import (
    Dialogue,
    RowOptions,
    further_turns,
    groups,
    rows,
    split_of,
)


@pytest.fixture(scope="module")
def dialogues() -> list[Dialogue]:
    return [one for one in chitchat.dialogues() if split_of(one.id) == "validation"]


def test_the_sample_that_the_exporter_and_the_demo_use_is_not_trained_on() -> None:
    assert {split_of(conversation.id) for conversation in conversations()} == {"test"}


def test_the_shares_of_the_splits() -> None:
    counts = Counter(split_of(dialogue.id) for dialogue in chitchat.dialogues())
    total = sum(counts.values())
    assert total > 4000
    assert counts["test"] / total == pytest.approx(0.10, abs=0.02)
    assert counts["validation"] / total == pytest.approx(0.04, abs=0.02)


def test_a_reply_is_accepted_if_the_partner_went_on() -> None:
    """Turns of a, b, a, b: the partner speaks again after the third, but not after the last."""
    dialogue = Dialogue("x", ("hi", "hello", "how are you", "bye"))
    other = Dialogue("y", ("what is that", "a cat", "nice cat", "thanks"))
    made = list(rows([dialogue, other], RowOptions(n_negatives=1)))
    own = [
        (row.candidate, row.label)
        for row in made
        if row.group[0] == "x" and "other" not in row.kind
    ]
    assert own == [("hello", 1), ("how are you", 1), ("bye", 0)]
    assert [further_turns(4, turn) for turn in range(4)] == [2, 1, 1, 0]
    stricter = rows([dialogue, other], RowOptions(n_negatives=0, continued=2))
    assert [row.label for row in stricter if row.group[0] == "x"] == [0, 0, 0]


def test_negatives_are_replies_of_other_dialogues(dialogues: list[Dialogue]) -> None:
    said = {dialogue.id: set(dialogue.turns) for dialogue in dialogues}
    made = list(rows(dialogues, RowOptions()))
    others = [row for row in made if row.kind.startswith("other")]
    assert len(others) == 3 * (len(made) - len(others))
    assert not any(row.label for row in others)
    own = sum(row.candidate in said[row.group.rpartition(":")[0]] for row in others)
    assert own / len(others) < 0.02  # replies like "yes", which occur everywhere


def test_hard_negatives_are_about_as_long(dialogues: list[Dialogue]) -> None:
    """A model must not be able to recognise real replies by their length."""
    made = list(rows(dialogues, RowOptions()))
    real = [len(row.candidate) for row in made if not row.kind.startswith("other")]
    like = [len(row.candidate) for row in made if row.kind == "other-of-like-length"]
    assert sum(like) / len(like) == pytest.approx(sum(real) / len(real), rel=0.05)


def test_contexts_are_what_was_said_before(dialogues: list[Dialogue]) -> None:
    turns = {dialogue.id: dialogue.turns for dialogue in dialogues}
    for row in list(rows(dialogues[:20], RowOptions()))[::7]:
        name, _, start = row.group.rpartition(":")
        said = "".join(f"{turn}\n" for turn in turns[name][int(start) :])
        assert said.startswith(row.context)
        assert row.context


def test_every_turn_but_the_first_is_a_candidate(dialogues: list[Dialogue]) -> None:
    made = list(rows(dialogues[:20], RowOptions(n_negatives=0)))
    for dialogue in dialogues[:20]:
        found = {row.candidate for row in made if row.group.startswith(dialogue.id)}
        assert found >= set(dialogue.turns[1:])


def test_groups_hold_the_real_reply_among_others(dialogues: list[Dialogue]) -> None:
    turns = {turn for dialogue in dialogues for turn in dialogue.turns}
    made = list(groups(dialogues, n_candidates=8))
    assert len({group.best for group in made}) == 8
    for group in made[::11]:
        assert len(group.candidates) == 8
        assert set(group.candidates) <= turns
        real = group.candidates[group.best]
        assert [one.casefold() for one in group.candidates].count(real.casefold()) == 1
    assert list(groups(dialogues, n_candidates=8)) == made  # the same each time


def test_rows_and_groups_are_written_in_any_format(dialogues: list[Dialogue]) -> None:
    chai = FORMATS["chai"]
    some = dialogues[:5]
    lines = list(rows(some, RowOptions()))
    made = list(rows(some, RowOptions(chat_format=chai)))
    assert [row.label for row in made] == [row.label for row in lines]
    for one, row in zip(made, lines, strict=True):
        assert one.candidate == f" {row.candidate}"
        *before, end = one.context.split("\n")
        assert (end, before[-1].split(":")[0]) == ("Bot:", "User")
    (group, *_) = groups(some, chat_format=chai)
    assert group.context.endswith("\nBot:")
    assert all(candidate.startswith(" ") for candidate in group.candidates)
