"""The logic of both clients: everything but the waiting.

    text ──► token ids ──► requests ──► servers in turn ──► checked rewards ──► results

Methods are generators of `steps.Step`; see there.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc
import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from reward_client import wire
from reward_client.counters import Counters
from reward_client.endpoints import SILENT_REST_S, Endpoint, Endpoints
from reward_client.errors import (
    DeadlineError,
    InvalidInputError,
    ModelNotFoundError,
    ModelNotReadyError,
    ServerError,
    UnavailableError,
)
from reward_client.grpc_errors import NO_ANSWER, server_error
from reward_client.log import LOG
from reward_client.options import Options, Priority, Terms
from reward_client.results import Ranking, Rewards, Scores, ServerInfo
from reward_client.steps import Ask, Pause, Steps, T, Together
from reward_client.tracing import Span, span
from reward_text import Encoded, Tokenizer

RESCORES = 3  # times that parts of a call are scored again because the model was exchanged

Group = tuple[str, Sequence[str]]
"""A context and its candidates."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The rewards [B] of one request, and the version that gave them."""

    rewards: Rewards
    version: int


class _BatchTooLargeError(Exception):
    """A server takes fewer rows than those known before; it is one of them now."""


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
        self.counters = Counters()
        self._tokenizer = Tokenizer()
        self._version = "" if options.model_version is None else str(options.model_version)
        self._metadata = tuple(options.connection.metadata.items())

    def connect(self) -> Steps[ServerInfo]:
        """Hold the first server that answers to the contract."""
        with span("connect") as current:
            terms = Terms.of(self.options, current)
            return (yield from self._retried(terms, lambda it: self._introduced(it, terms)))

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
        answers = None
        while answers is None:
            max_rows = yield from self._max_batch_rows(terms)
            with contextlib.suppress(_BatchTooLargeError):  # for a server met only now
                answers = yield from self._answers(list(wire.batches(encoded.ids, max_rows)), terms)
        rewards = np.concatenate([answer.rewards for answer in answers])
        wire.check_finite(rewards)
        self.counters.scored(encoded)
        return Scores(rewards, answers[0].version, encoded.n_tokens, encoded.n_truncated)

    def _max_batch_rows(self, terms: Terms) -> Steps[int]:
        """Rows that fit into a request to any server known so far."""
        known = self.endpoints.max_batch_rows()
        if known is not None:
            return known
        info = yield from self._retried(terms, lambda it: self._introduced(it, terms))
        return info.max_batch_rows

    def _answers(self, batches: list[NDArray[np.int32]], terms: Terms) -> Steps[list[Answer]]:
        """The answer to each batch, all of one version."""
        if len(batches) == 1:
            return [(yield from self._answer(batches[0], terms))]
        answers: list[Answer] = yield Together([self._answer(batch, terms) for batch in batches])
        for _ in range(RESCORES):
            stale = [i for i, one in enumerate(answers) if one.version != answers[-1].version]
            if not stale:
                break
            LOG.info("model exchanged during a call: %d requests are repeated", len(stale))
            again = yield Together([self._answer(batches[i], terms) for i in stale])
            for i, answer in zip(stale, again, strict=True):
                answers[i] = answer
        wire.check_one_version([answer.version for answer in answers])
        return answers

    def _answer(self, ids: NDArray[np.int32], terms: Terms) -> Steps[Answer]:
        return self._retried(terms, lambda endpoint: self._infer(endpoint, ids, terms))

    def _retried(self, terms: Terms, action: "Callable[[Endpoint], Steps[T]]") -> Steps[T]:
        """The action at a server in turn, and at others or later while none is there."""
        retry = self.options.connection.retry
        attempts = retry.attempts + len(self.endpoints.all) - 1
        for attempt in itertools.count(1):
            endpoint = self.endpoints.pick()
            try:
                return (yield from action(endpoint))
            except DeadlineError as error:
                error.attempts = attempt
                if error.code == NO_ANSWER:
                    self.endpoints.mark_away(endpoint, SILENT_REST_S)
                raise
            except (UnavailableError, ModelNotReadyError) as error:
                error.attempts = attempt
                self.endpoints.mark_away(endpoint)
                if attempt == attempts:
                    raise
                LOG.info("%s; attempt %d of %d", error, attempt, attempts)
                if not self.endpoints.any_present():
                    left_s = terms.deadline - time.monotonic()
                    yield Pause(max(min(retry.pause_s(attempt), left_s), 0.0))
                if time.monotonic() >= terms.deadline:
                    raise
                self.counters.retried()
        raise AssertionError("the loop above ends by itself")

    def _infer(self, endpoint: Endpoint, ids: NDArray[np.int32], terms: Terms) -> Steps[Answer]:
        info = yield from self._introduced(endpoint, terms)
        if len(ids) > info.max_batch_rows:
            raise _BatchTooLargeError
        request = wire.request_of(
            ids,
            model=self.options.model,
            version=self._version,
            priority_level=terms.priority_level,
        )
        wire.set_time_left(request, terms.time_left_s(endpoint.url))
        with span("attempt", terms.span) as current:
            current.set("server.address", endpoint.url)
            response = yield from self._ask(endpoint, "ModelInfer", request, terms, current)
            version = wire.version_of(response)
            current.set("model.version", version)
            return Answer(wire.rewards_of(response, len(ids)), version)

    def _introduced(self, endpoint: Endpoint, terms: Terms) -> Steps[ServerInfo]:
        """Who answers there, held to the contract the first time and after it was away."""
        if endpoint.info is not None:
            return endpoint.info
        name, version = self.options.model, self._version
        server = yield from self._ask(
            endpoint, "ServerMetadata", service_pb2.ServerMetadataRequest(), terms
        )
        model = service_pb2.ModelMetadataRequest(name=name, version=version)
        metadata = yield from self._ask(endpoint, "ModelMetadata", model, terms)
        config = service_pb2.ModelConfigRequest(name=name, version=version)
        response = yield from self._ask(endpoint, "ModelConfig", config, terms)
        max_rows = wire.check_config(response.config, endpoint.url)
        versions = tuple(sorted(int(number) for number in metadata.versions))
        if not versions:
            raise ModelNotFoundError(f"{endpoint.url} has no version of {name}", url=endpoint.url)
        info = ServerInfo(endpoint.url, server.name, server.version, name, versions, max_rows)
        endpoint.info = info
        return info

    def _ask(
        self,
        endpoint: Endpoint,
        method: str,
        request: Message,
        terms: Terms,
        current: Span | None = None,
    ) -> Steps[Message]:
        headers = (current or terms.span).headers()
        timeout_s = terms.time_left_s(endpoint.url)
        outcome = yield Ask(endpoint.index, method, request, timeout_s, (*self._metadata, *headers))
        if isinstance(outcome, grpc.RpcError):
            error: ServerError = server_error(outcome, endpoint.url)
            self.counters.failed()
            raise error from outcome
        return outcome


def _concatenated(parts: Sequence[Encoded]) -> Encoded:
    ids = [part.ids for part in parts] or [np.empty((0, 0), np.int32)]
    return Encoded(
        np.concatenate(ids),
        sum(part.n_tokens for part in parts),
        sum(part.n_truncated for part in parts),
    )
