"""The logic of both clients: everything but the waiting.

    text ──► token ids ──► requests ──► servers in turn ──► checked rewards ──► results

Methods are generators of `steps.Step`; see there.
"""

import time
from collections.abc import Sequence
from dataclasses import replace

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
from reward_client.results import Ranking, Scores, ServerInfo
from reward_client.steps import Pause, Steps, Together
from reward_client.tracing import span
from reward_text import Encoded, Tokenizer, Truncation, check_texts

TURN_S = 0.001  # of tokenising at a stretch
ROWS_PER_LOOK = 8

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
        with span("connect") as current:
            return (yield from self._introduced(Terms.of(self.options, current), self._attempts))

    def is_ready(self, timeout_s: float | None) -> Steps[bool]:
        """Whether some server answers and keeps the contract, each asked once."""
        with span("is_ready") as current:
            terms = Terms.of(self.options, current, Wishes(timeout_s=timeout_s))
            asked = [self._is_ready(endpoint, terms) for endpoint in self.endpoints.all]
            return any((yield Together(asked)))

    def wait_until_ready(self, timeout_s: float) -> Steps[ServerInfo]:
        """As `connect`, with all the patience that the time allows."""
        with span("wait_until_ready") as current:
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
        with span("score") as current:
            terms = Terms.of(self.options, current, wishes)
            with span("tokenise", current):
                encoded = yield from self._encode_texts(texts)
            return (yield from self._scores(encoded, terms))

    def rank(self, context: str, candidates: Sequence[str], wishes: Wishes) -> Steps[Ranking]:
        """One group's candidates, best first."""
        with span("rank") as current:
            terms = Terms.of(self.options, current, wishes)
            with span("tokenise", current):
                encoded = self._tokenizer.encode_group(context, candidates, terms.truncation)
            scores = yield from self._scores(encoded, terms)
            return _ranking(candidates, scores, slice(None))

    def rank_many(self, groups: Sequence[Group], wishes: Wishes) -> Steps[list[Ranking]]:
        """Several groups at once."""
        with span("rank_many") as current:
            terms = Terms.of(self.options, current, wishes)
            with span("tokenise", current):
                parts = yield from self._encode_groups(groups, terms.truncation)
            scores = yield from self._scores(Encoded.concatenated(parts), terms)
            rankings, start, turn = [], 0, Turn()
            for (_, candidates), part in zip(groups, parts, strict=True):
                rows = slice(start, start + len(part.ids))
                rankings.append(_ranking(candidates, scores, rows))
                start = rows.stop
                yield from turn.over()
            return rankings

    def _encode_texts(self, texts: Sequence[str]) -> Steps[Encoded]:
        check_texts(texts)
        turn, parts = Turn(), []
        for start in range(0, len(texts), ROWS_PER_LOOK):
            parts.append(self._tokenizer.encode_texts(texts[start : start + ROWS_PER_LOOK]))
            yield from turn.over()
        return Encoded.concatenated(parts)

    def _encode_groups(
        self, groups: Sequence[Group], truncation: Truncation
    ) -> Steps[list[Encoded]]:
        turn, parts = Turn(), []
        for index, group in enumerate(groups):
            try:
                context, candidates = group
                parts.append(self._tokenizer.encode_group(context, candidates, truncation))
            except InvalidInputError as error:
                raise InvalidInputError(
                    f"group {index}: {error}", row=error.row, group=index
                ) from error
            except (TypeError, ValueError) as error:
                raise InvalidInputError(
                    f"group {index} is not a pair of a context and its candidates", group=index
                ) from error
            yield from turn.over()
        return parts

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


def _ranking(candidates: Sequence[str], scores: Scores, rows: slice) -> Ranking:
    rewards = scores.rewards[rows]
    best_first = wire.ranked(candidates, rewards, scores.lengths[rows], scores.is_truncated[rows])
    return Ranking(best_first, scores.model_version if len(rewards) else None)


class Turn:
    """Lets others have a turn after some time of work: an event loop must not be blocked."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def over(self) -> Steps[None]:
        """Pause if it has been long enough."""
        if time.perf_counter() - self._began > TURN_S:
            yield Pause(0.0)
            self._began = time.perf_counter()
