"""The logic of both clients: everything but the waiting.

    text ──► token ids ──► requests ──► servers in turn ──► checked rewards ──► results

Methods are generators of `steps.Step`; see there.
"""

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
from reward_client.options import Options, Priority, Terms
from reward_client.parts import Parts
from reward_client.results import Ranking, Scores, ServerInfo
from reward_client.steps import Steps, Together
from reward_client.tracing import span
from reward_text import Encoded, Tokenizer

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
            terms = Terms.of(self.options, current, timeout_s)
            asked = [self._is_ready(endpoint, terms) for endpoint in self.endpoints.all]
            return any((yield Together(asked)))

    def wait_until_ready(self, timeout_s: float) -> Steps[ServerInfo]:
        """As `connect`, with all the patience that the time allows."""
        with span("wait_until_ready") as current:
            terms = Terms.of(self.options, current, timeout_s)
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

    def score(
        self, texts: Sequence[str], timeout_s: float | None, priority: Priority | None
    ) -> Steps[Scores]:
        """The reward of each text."""
        with span("score") as current:
            terms = Terms.of(self.options, current, timeout_s, priority)
            with span("tokenise", current):
                encoded = self._tokenizer.encode_texts(texts)
            return (yield from self._scores(encoded, terms))

    def rank(
        self,
        context: str,
        candidates: Sequence[str],
        timeout_s: float | None,
        priority: Priority | None,
    ) -> Steps[Ranking]:
        """One group's candidates, best first."""
        with span("rank") as current:
            terms = Terms.of(self.options, current, timeout_s, priority)
            with span("tokenise", current):
                encoded = self._encode_group(context, candidates)
            scores = yield from self._scores(encoded, terms)
            return Ranking(wire.ranked(candidates, scores.rewards), scores.model_version)

    def rank_many(
        self, groups: Sequence[Group], timeout_s: float | None, priority: Priority | None
    ) -> Steps[list[Ranking]]:
        """Several groups at once."""
        with span("rank_many") as current:
            terms = Terms.of(self.options, current, timeout_s, priority)
            with span("tokenise", current):
                parts = self._encode_groups(groups)
            scores = yield from self._scores(_concatenated(parts), terms)
        ends = np.cumsum([len(part.ids) for part in parts])
        pieces = np.split(scores.rewards, ends[:-1]) if parts else []
        return [
            Ranking(
                wire.ranked(candidates, rewards), scores.model_version if len(rewards) else None
            )
            for (_, candidates), rewards in zip(groups, pieces, strict=True)
        ]

    def _encode_group(self, context: str, candidates: Sequence[str]) -> Encoded:
        return self._tokenizer.encode_group(context, candidates, self.options.truncation)

    def _encode_groups(self, groups: Sequence[Group]) -> list[Encoded]:
        parts = []
        for index, group in enumerate(groups):
            try:
                context, candidates = group
                parts.append(self._encode_group(context, candidates))
            except InvalidInputError as error:
                raise InvalidInputError(
                    f"group {index}: {error}", row=error.row, group=index
                ) from error
            except (TypeError, ValueError) as error:
                raise InvalidInputError(
                    f"group {index} is no pair of a context and its candidates", group=index
                ) from error
        return parts

    def _scores(self, encoded: Encoded, terms: Terms) -> Steps[Scores]:
        """Ask for all rows, in as many requests as they need."""
        if not len(encoded.ids):
            return Scores(np.empty(0, np.float32), None, 0, 0)
        terms.span.set("candidates", len(encoded.ids))
        answers = yield from self._parts.answers(encoded.ids, terms)
        rewards = np.concatenate([answer.rewards for answer in answers])
        wire.check_finite(rewards)
        self.counters.scored(encoded)
        return Scores(rewards, answers[0].version, encoded.n_tokens, encoded.n_truncated)


def _concatenated(parts: Sequence[Encoded]) -> Encoded:
    ids = [part.ids for part in parts] or [np.empty((0, 0), np.int32)]
    return Encoded(
        np.concatenate(ids),
        sum(part.n_tokens for part in parts),
        sum(part.n_truncated for part in parts),
    )
