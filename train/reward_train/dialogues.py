"""Dialogues to labelled rows: which replies the partner went on after, and which not.

The text of a row is laid out in a format of `reward_text`: the candidate is the bot's reply, and
the turns before it are the user's and the bot's in turn.
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
NEIGHBOURS = 50  # replies of like length are drawn from so many on either side


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A conversation of two sides that take turns.

    Attributes:
        id: decides the split, so that it has to be stable.
        turns: what was said, in turn, none of them empty.
    """

    id: str
    turns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """A labelled candidate.

    Attributes:
        context: the turns before, in a format.
        candidate: the reply, in that format.
        label: 1 accepted, 0 not.
        kind: why: the partner went on, the conversation ended, or it is another one's reply.
        group: rows of one group stand together and share the beginning of their contexts.
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
        context: the turns before, in a format, or messages.
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
        continued: an accepted reply has at least so many further turns of the partner.
        n_negatives: replies of other conversations for each real one, every second of like
            length.
        window_chars: a dialogue is cut into windows of about so many characters, one drawn
            for each; contexts begin where their window does.
        seed: of every draw.
        chat_format: of the texts.
    """

    continued: int = 1
    n_negatives: int = 3
    window_chars: tuple[int, ...] = (250, 500, 750)
    seed: int = 0
    chat_format: Format = FORMATS["lines"]


def split_of(dialogue_id: str) -> Split:
    """The split of a conversation, from nothing but its id.

    Test holds the lowest SHA-256 hashes, because the conversations of the exporter's sample
    and the demo were chosen in the order of these hashes: all of them are in test.
    """
    digest = hashlib.sha256(dialogue_id.encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < TEST_SHARE:
        return "test"
    return "validation" if place < TEST_SHARE + VALIDATION_SHARE else "train"


def further_turns(n_turns: int, turn: int) -> int:
    """How often the partner spoke after a turn. The card's "remaining user messages".

    >>> [further_turns(4, turn) for turn in range(4)]
    [2, 1, 1, 0]
    """
    return (n_turns - turn) // 2


def rows(dialogues: Sequence[Dialogue], options: RowOptions) -> Iterator[LabelledRow]:
    """Rows of dialogues, which should all be of one split: negatives are drawn among them."""
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

    A window begins two turns before the last one's end, so that every reply but the first has
    a context of at least two turns.
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
    """Turns of two sides before a reply of the bot's."""
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
        """A reply of another conversation, not the same words."""
        return self._other(own_id, reply, 0, len(self._replies) - 1)

    def of_like_length(self, own_id: str, reply: str) -> str:
        """The same, about as long as the reply."""
        place = bisect_left(self._lengths, len(reply))
        # long conversations can fill a neighbourhood: it is not the same for every length
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
    """Real replies that the partner went on after, each among replies of other conversations.

    The context is the whole conversation so far, as a chat service would send it.

    Args:
        dialogues: of one split; long enough ones are used.
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
