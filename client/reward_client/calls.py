"""The logic of both clients: everything but the waiting.

    text ──► token ids ──► requests ──► servers in turn ──► checked rewards ──► results

Methods are generators of `steps.Step`; see there.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np

from reward_client import wire
from reward_client.asking import Asking
from reward_client.attempts import Attempts
from reward_client.connection import Retry
from reward_client.endpoints import Endpoint, Endpoints
from reward_client.errors import InvalidInputError, ServerError
from reward_client.introductions import Introductions
from reward_client.options import Options, Terms, Wishes
from reward_client.parts import Parts
from reward_client.results import RankedCandidate, Ranking, Scores, ServerInfo
from reward_client.steps import Pause, Steps, T, Together, Work
from reward_client.timing import timed
from reward_client.tracing import Span, span
from reward_text import Encoded, Tokenizer, check_texts

TURN_S = 0.001  # of tokenising at a stretch
ROWS_PER_LOOK = 8
LONG_TEXT = 100_000  # characters; without any place to cut, a million take a second
GROUP_FIELDS = 2  # a context, and its candidates

Group = tuple[str, Sequence[str]]
"""A context and its candidates."""


class Calls:
    """Both clients' methods, as steps.

    Args:
        urls: host and gRPC port, or several.
        options: what holds for all calls.

    Attributes:
        endpoints: the servers.
        counters: what has been done so far.
    """

    def __init__(self, urls: str | Sequence[str], options: Options) -> None:
        self.options = options
        self.endpoints = Endpoints(urls)
        self._asking = Asking(options, self.endpoints)
        self.counters = self._asking.counters
        self._introductions = Introductions(self._asking)
        self._attempts = Attempts(self._asking, self._introductions)
        self._parts = Parts(self.endpoints, self._introductions, self._attempts)
        self._tokenizer = Tokenizer()

    def connect(self) -> Steps[ServerInfo]:
        """Hold the first server that answers to the contract."""
        with self._call("connect") as current:
            return (yield from self._introduced(Terms.of(self.options, current), self._attempts))

    def is_ready(self, timeout_s: float | None) -> Steps[bool]:
        """Whether some server answers and keeps the contract, each asked once."""
        with self._call("is_ready") as current:
            terms = Terms.of(self.options, current, Wishes(timeout_s=timeout_s))
            asked = [self._is_ready(endpoint, terms) for endpoint in self.endpoints.all]
            return any((yield Together(asked)))

    def wait_until_ready(self, timeout_s: float) -> Steps[ServerInfo]:
        """As `connect`, with all the patience that the time allows."""
        with self._call("wait_until_ready") as current:
            terms = Terms.of(self.options, current, Wishes(timeout_s=timeout_s))
            retry = replace(self.options.connection.retry or Retry(), attempts=None)
            patient = Attempts(self._asking, self._introductions, retry)
            return (yield from self._introduced(terms, patient))

    def _introduced(self, terms: Terms, attempts: Attempts) -> Steps[ServerInfo]:
        return attempts.until_served(terms, lambda one: self._introductions.anew(one, terms))

    def _is_ready(self, endpoint: Endpoint, terms: Terms) -> Steps[bool]:
        try:
            yield from self._introductions.anew(endpoint, terms)
        except ServerError:
            return False
        return True

    def score(self, texts: Sequence[str], wishes: Wishes) -> Steps[Scores]:
        """The reward of each text."""
        with self._call("score") as current:
            terms = Terms.of(self.options, current, wishes)
            with span("tokenise", current):
                encoded = yield from self._encode_texts(texts)
            return (yield from self._scores(encoded, terms))

    def rank(self, context: str, candidates: Sequence[str], wishes: Wishes) -> Steps[Ranking]:
        """One group's candidates, best first."""
        with self._call("rank") as current:
            terms = Terms.of(self.options, current, wishes)
            with span("tokenise", current):
                encoded = yield from self._encode_group(context, candidates, terms)
            scores = yield from self._scores(encoded, terms)
            return _ranking(candidates, scores, slice(None))

    def rank_many(self, groups: Sequence[Group], wishes: Wishes) -> Steps[list[Ranking]]:
        """Several groups at once."""
        with self._call("rank_many") as current:
            terms = Terms.of(self.options, current, wishes)
            return (yield from self._rankings(groups, terms))

    def rank_each(self, index: int, group: Group, wishes: Wishes) -> Steps[tuple[int, Ranking]]:
        """One of many groups that are asked one by one."""
        with self._call("rank_each") as current:
            terms = Terms.of(self.options, current, wishes)
            (ranking,) = yield from self._rankings([group], terms, index)
            return index, ranking

    @contextmanager
    def _call(self, method: str) -> Iterator[Span]:
        with timed(self.options.on_timing, "call", method), span(method) as current:
            yield current

    def _rankings(
        self, groups: Sequence[Group], terms: Terms, first: int = 0
    ) -> Steps[list[Ranking]]:
        with span("tokenise", terms.span):
            parts = yield from self._encode_groups(groups, terms, first)
        encoded = [part for part in parts if isinstance(part, Encoded)]
        scores = yield from self._scores(Encoded.concatenated(encoded), terms)
        rankings, start, turn = [], 0, Turn()
        for group, part in zip(groups, parts, strict=True):
            if isinstance(part, InvalidInputError):
                rankings.append(_unscored(group, part))
                continue
            rows = slice(start, start + len(part.ids))
            rankings.append(_ranking(group[1], scores, rows))
            start = rows.stop
            yield from turn.over()
        return rankings

    def _encode_texts(self, texts: Sequence[str]) -> Steps[Encoded]:
        check_texts(texts)
        turn, parts = Turn(), []
        for start in range(0, len(texts), ROWS_PER_LOOK):
            some = texts[start : start + ROWS_PER_LOOK]
            encode = partial(self._tokenizer.encode_texts, some)
            parts.append((yield from _worked(encode, _n_characters(some))))
            yield from turn.over()
        return Encoded.concatenated(parts)

    def _encode_groups(
        self, groups: Sequence[Group], terms: Terms, first: int
    ) -> Steps[list[Encoded | InvalidInputError]]:
        """The rows of each group, or why it has none; `first` is the number of the first group."""
        turn, parts = Turn(), list[Encoded | InvalidInputError]()
        for index, group in enumerate(groups, first):
            try:
                context, candidates = group
                part = yield from self._encode_group(context, candidates, terms)
            except (InvalidInputError, TypeError, ValueError) as error:
                refusal = _refusal(index, error)
                if terms.on_error == "raise":
                    raise refusal from error
                parts.append(refusal)  # never raised: a traceback would keep all texts alive
            else:
                parts.append(part)
            yield from turn.over()
        return parts

    def _encode_group(
        self, context: str, candidates: Sequence[str], terms: Terms
    ) -> Steps[Encoded]:
        encode = partial(self._tokenizer.encode_group, context, candidates, terms.truncation)
        return (yield from _worked(encode, _n_characters([context]) + _n_characters(candidates)))

    def _scores(self, encoded: Encoded, terms: Terms) -> Steps[Scores]:
        """Ask for all rows, in as many requests as they need."""
        if not len(encoded.ids):
            empty = np.empty(0, np.float32)
            return Scores(empty, None, 0, 0, encoded.lengths, encoded.is_cut)
        terms.span.set("candidates", len(encoded.ids))
        answers = yield from self._parts.answers(encoded.ids, terms)
        rewards = np.concatenate([answer.rewards for answer in answers])
        if terms.on_error == "raise":
            wire.check_finite(rewards)
        else:
            rewards[~np.isfinite(rewards)] = np.nan
        self.counters.scored(encoded)
        return Scores(
            rewards,
            answers[0].version,
            encoded.n_tokens,
            encoded.n_truncated,
            encoded.lengths,
            encoded.is_cut,
        )


def _worked(encode: Callable[[], T], n_characters: int) -> Steps[T]:
    """The tokens; those of long texts are made where an event loop is not blocked."""
    if n_characters < LONG_TEXT:
        return encode()
    encoded: T = yield Work(encode)
    return encoded


def _n_characters(texts: object) -> int:
    """Of the strings among them; what is no text is refused later."""
    if not isinstance(texts, Sequence):
        return 0
    return sum(len(text) for text in texts if isinstance(text, str))


def _ranking(candidates: Sequence[str], scores: Scores, rows: slice) -> Ranking:
    rewards = scores.rewards[rows]
    best_first = wire.ranked(candidates, rewards, scores.lengths[rows], scores.is_truncated[rows])
    return Ranking(best_first, scores.model_version if len(rewards) else None)


def _refusal(index: int, error: Exception) -> InvalidInputError:
    """The error, with the number of the group."""
    if isinstance(error, InvalidInputError):
        return InvalidInputError(f"group {index}: {error}", row=error.row, group=index)
    return InvalidInputError(
        f"group {index} is not a pair of a context and its candidates", group=index
    )


def _unscored(group: object, error: InvalidInputError) -> Ranking:
    """NaN for each candidate of a group that cannot be scored, as far as it has candidates."""
    candidates: object = ()
    if isinstance(group, Sequence) and not isinstance(group, str) and len(group) == GROUP_FIELDS:
        candidates = group[1]
    if isinstance(candidates, str | bytes) or not isinstance(candidates, Sequence):
        candidates = ()
    unscored = (RankedCandidate(text, math.nan, index) for index, text in enumerate(candidates))
    return Ranking(tuple(unscored), None, error)


class Turn:
    """Lets others have a turn after some time of work: an event loop must not be blocked."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def over(self) -> Steps[None]:
        """Pause if it has been long enough."""
        if time.perf_counter() - self._began > TURN_S:
            yield Pause(0.0)
            self._began = time.perf_counter()
