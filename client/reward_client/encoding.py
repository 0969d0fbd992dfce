"""Texts and groups as rows for a model, in its format and window; and what cannot be scored."""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from reward_client.errors import InvalidInputError
from reward_client.options import OnError
from reward_client.results import RankedCandidate, Ranking
from reward_client.steps import Pause, Steps, Work
from reward_text import Context, Encoded, Tokenizer, Truncation, Usage, check_texts, is_chat

TURN_S = 0.001  # seconds of tokenising at a stretch
ROWS_PER_LOOK = 8
LONG_TEXT = 100_000  # characters; a million without any place to cut take a second
GROUP_FIELDS = 2  # a context, and its candidates

Group: TypeAlias = tuple[Context, Sequence[str]]
"""A context, which is text or a conversation, and its candidates."""

Part: TypeAlias = Encoded | InvalidInputError
"""The rows of a group, or why it has none."""


def encode_texts(texts: Sequence[str], usage: Usage) -> Steps[list[Part]]:
    """The rows of whole texts, encoded a few at a time."""
    check_texts(texts)
    tokenizer, turn, parts = Tokenizer(usage.max_tokens), Turn(), list[Part]()
    for start in range(0, len(texts), ROWS_PER_LOOK):
        some = texts[start : start + ROWS_PER_LOOK]
        encode = partial(tokenizer.encode_texts, some)
        parts.append((yield from _worked(encode, _n_characters(some))))
        yield from turn.over()
    return parts


def encode_group(
    context: Context, candidates: Sequence[str], truncation: Truncation, usage: Usage
) -> Steps[Encoded]:
    """The rows of one group.

    Raises:
        InvalidInputError: as in `Usage.texts` and `Tokenizer.encode_group`.
    """
    text, replies = usage.texts(context, candidates)
    tokenizer = Tokenizer(usage.max_tokens)
    encode = partial(tokenizer.encode_group, text, replies, truncation)
    return (yield from _worked(encode, _n_characters([text]) + _n_characters(replies)))


def encode_groups(
    groups: Sequence[Group], truncation: Truncation, on_error: OnError, first: int, usage: Usage
) -> Steps[list[Part]]:
    """Each group's rows, or why it has none; `first` is the number of the first group."""
    turn, parts = Turn(), list[Part]()
    for index, group in enumerate(groups, first):
        try:
            context, candidates = group
            part = yield from encode_group(context, candidates, truncation, usage)
        except (InvalidInputError, TypeError, ValueError) as error:
            refusal = _refusal(index, error)
            if on_error == "raise":
                raise refusal from error
            parts.append(refusal)  # never raised: a traceback would keep all texts alive
        else:
            parts.append(part)
        yield from turn.over()
    return parts


def _worked(encode: Callable[[], Encoded], n_characters: int) -> Steps[Encoded]:
    """The encoded rows; long texts are encoded where they do not block an event loop."""
    if n_characters < LONG_TEXT:
        return encode()
    encoded: Encoded = yield Work(encode)
    return encoded


def _n_characters(texts: object) -> int:
    """Characters of the strings among the texts; what is not a string is refused later."""
    if not isinstance(texts, Sequence):
        return 0
    return sum(len(text) for text in texts if isinstance(text, str))


def has_chat(group: object) -> bool:
    """Whether a group may need the model's format."""
    if not isinstance(group, Sequence):
        return True  # such as an iterator, which can be read only once
    return len(group) == GROUP_FIELDS and is_chat(group[0])


def unscored(group: object, error: InvalidInputError) -> Ranking:
    """A ranking of NaN for a group that cannot be scored; empty if it has no candidates."""
    candidates: object = ()
    if isinstance(group, Sequence) and not isinstance(group, str) and len(group) == GROUP_FIELDS:
        candidates = group[1]
    if isinstance(candidates, str | bytes) or not isinstance(candidates, Sequence):
        candidates = ()
    ranked = (RankedCandidate(text, math.nan, index) for index, text in enumerate(candidates))
    return Ranking(tuple(ranked), None, error)


def _refusal(index: int, error: Exception) -> InvalidInputError:
    """The error, with the number of the group."""
    if isinstance(error, InvalidInputError):
        return type(error)(f"group {index}: {error}", row=error.row, group=index)
    return InvalidInputError(
        f"group {index} is not a pair of a context and its candidates", group=index
    )


class Turn:
    """Lets other tasks run after some time of work: an event loop must not be blocked."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def over(self) -> Steps[None]:
        """Pause if the work has taken long enough."""
        if time.perf_counter() - self._began > TURN_S:
            yield Pause(0.0)
            self._began = time.perf_counter()
