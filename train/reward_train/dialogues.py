"""Labelled rows from dialogues: after which replies the partner continued, and after which not.

The text of a row is laid out in a format of `reward_text`: the candidate is the bot's reply, and
the turns before it alternate between the user and the bot.
"""

import hashlib
import random
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from reward_text import FORMATS, Context, Format

Split = Literal["train", "validation", "test"]
Kind = Literal["continued", "ended", "other", "other-of-like-length"]

TEST_SHARE, VALIDATION_SHARE = 0.10, 0.04
NEIGHBOURS = 50  # replies of like length are drawn from this many on either side


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A conversation of two sides that take turns.

    Attributes:
        id: decides the split, so it has to be stable.
        turns: what the two sides said, alternating; none is empty.
    """

    id: str
    turns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """A labelled candidate.

    Attributes:
        context: the turns before the reply, in a format.
        candidate: the reply, in that format.
        label: 1 accepted, 0 not.
        kind: why: the partner continued, the conversation ended, or the reply is from another one.
        group: rows of one group are adjacent, and their contexts begin alike.
    """

    context: str
    candidate: str
    label: int
    kind: Kind
    group: str


@dataclass(frozen=True, slots=True)
class LabelledGroup:
    """Candidates of one context, the real reply among them.

    Attributes:
        context: the turns before the reply, in a format, or messages.
        candidates: replies, the real one at `best`, the others from other conversations.
        best: index of the real reply.
        worst: index of a candidate that must not be chosen, or None if none is known.
    """

    context: Context
    candidates: tuple[str, ...]
    best: int
    worst: int | None = None


@dataclass(frozen=True, slots=True)
class RowOptions:
    """How rows are made.

    Attributes:
        continued: a reply is accepted if the partner sent at least this many further turns.
        n_negatives: replies from other conversations for each real one; the first, third, ...
            are of like length.
        window_chars: a dialogue is cut into windows of about this many characters, one size drawn
            for each; contexts begin where their window does.
        seed: of all draws.
        chat_format: of the texts.
    """

    continued: int = 1
    n_negatives: int = 3
    window_chars: tuple[int, ...] = (250, 500, 750)
    seed: int = 0
    chat_format: Format = FORMATS["lines"]


def split_of(dialogue_id: str) -> Split:
    """The split of a conversation, from its id only.

    Test holds the lowest SHA-256 hashes, because the conversations of the exporter's sample
    and the demo were chosen in the order of these hashes: all of them are in test.
    """
    digest = hashlib.sha256(dialogue_id.encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < TEST_SHARE:
        return "test"
    return "validation" if place < TEST_SHARE + VALIDATION_SHARE else "train"


def further_turns(n_turns: int, turn: int) -> int:
    """How often the partner spoke after a turn: the card's "remaining user messages".

    >>> [further_turns(4, turn) for turn in range(4)]
    [2, 1, 1, 0]
    """
    return (n_turns - turn) // 2


def rows(dialogues: Sequence[Dialogue], options: RowOptions) -> Iterator[LabelledRow]:
    """Rows of dialogues, which should all be of one split: negatives are drawn from them."""
    others = Replies(dialogues, random.Random(options.seed))  # noqa: S311  # no secret
    draw = random.Random(options.seed + 1)  # noqa: S311
    for dialogue in dialogues:
        for start, stop in windows(dialogue.turns, options.window_chars, draw):
            for turn in range(start + 1, stop):
                yield from _rows_of_turn(dialogue, start, turn, others, options)


def _rows_of_turn(
    dialogue: Dialogue, start: int, turn: int, others: "Replies", options: RowOptions
) -> Iterator[LabelledRow]:
    form = options.chat_format
    context = as_context(dialogue.turns[start:turn], form)
    reply, group = dialogue.turns[turn], f"{dialogue.id}:{start}"
    accepted = further_turns(len(dialogue.turns), turn) >= options.continued
    kind: Kind = "continued" if accepted else "ended"
    yield LabelledRow(context, form.candidate(reply), int(accepted), kind, group)
    for number in range(options.n_negatives):
        if number % 2:
            other, kind = others.any(dialogue.id, reply), "other"
        else:
            other, kind = others.of_like_length(dialogue.id, reply), "other-of-like-length"
        yield LabelledRow(context, form.candidate(other), 0, kind, group)


def windows(
    turns: Sequence[str], sizes: Sequence[int], draw: random.Random
) -> Iterator[tuple[int, int]]:
    """Ranges of turns that cover a dialogue, each of about a drawn number of characters.

    A window begins two turns before the previous one's end, so that every reply but the first
    has a context of at least two turns.
    """
    start = stop = 0
    while stop < len(turns):
        left, stop = draw.choice(sizes), start
        while stop < len(turns) and (left > 0 or stop < start + 3):
            left -= len(turns[stop])
            stop += 1
        yield start, stop
        start = stop - 2


def as_context(turns: Sequence[str], chat_format: Format) -> str:
    """The turns before a reply of the bot, in a format."""
    roles = ("assistant", "user")  # the last one before the reply is the user's
    return chat_format.context(
        [
            {"role": roles[(len(turns) - place) % 2], "content": turn}
            for place, turn in enumerate(turns)
        ]
    )


class Replies:
    """Replies of many conversations, to draw distractors from."""

    def __init__(self, dialogues: Iterable[Dialogue], draw: random.Random) -> None:
        replies = [(reply, item.id) for item in dialogues for reply in item.turns[1:]]
        self._replies = sorted(replies, key=lambda pair: (len(pair[0]), pair))
        self._lengths = [len(reply) for reply, _ in self._replies]
        self._draw = draw

    def any(self, own_id: str, reply: str) -> str:
        """A reply from another conversation, worded differently from this one."""
        return self._other(own_id, reply, 0, len(self._replies) - 1)

    def of_like_length(self, own_id: str, reply: str) -> str:
        """A reply from another conversation, about as long as this one and worded differently."""
        place = bisect_left(self._lengths, len(reply))
        # a long conversation can fill this range with its own replies; `_other` then widens it
        return self._other(own_id, reply, place - NEIGHBOURS, place + NEIGHBOURS)

    def _other(self, own_id: str, reply: str, low: int, high: int) -> str:
        low, high = max(low, 0), min(high, len(self._replies) - 1)
        for _ in range(100):
            other, other_id = self._replies[self._draw.randint(low, high)]
            if other_id != own_id and other.casefold() != reply.casefold():
                return other
        return self._other(own_id, reply, low - NEIGHBOURS, high + NEIGHBOURS)


def groups(
    dialogues: Sequence[Dialogue],
    *,
    n_candidates: int = 16,
    a_dialogue: int = 8,
    seed: int = 0,
    chat_format: Format = FORMATS["lines"],
) -> Iterator[LabelledGroup]:
    """Groups: a real reply after which the partner continued, among others' replies.

    The context is the whole conversation so far, as a chat service would send it.

    Args:
        dialogues: of one split; those that are long enough are used.
        n_candidates: candidates of a group; every second distractor is of like length.
        a_dialogue: largest number of replies taken from one conversation.
        seed: of the draws.
        chat_format: of the texts.
    """
    draw = random.Random(seed)  # noqa: S311
    others = Replies(dialogues, draw)
    for dialogue in dialogues:
        turns = range(1, len(dialogue.turns) - 1)  # the last one ended the conversation
        for turn in sorted(draw.sample(turns, min(a_dialogue, len(turns)))):
            reply = dialogue.turns[turn]
            candidates = [
                (others.any if number % 2 else others.of_like_length)(dialogue.id, reply)
                for number in range(n_candidates - 1)
            ]
            best = draw.randrange(n_candidates)
            candidates.insert(best, reply)
            context = as_context(dialogue.turns[:turn], chat_format)
            yield LabelledGroup(context, tuple(map(chat_format.candidate, candidates)), best)
