"""Retries until a server answers: others at once, the same one later, within time and budget."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from reward_client import wire
from reward_client.asking import Asking
from reward_client.connection import Retry
from reward_client.endpoints import Endpoint
from reward_client.errors import (
    DeadlineError,
    ModelNotReadyError,
    OverloadedError,
    RejectedError,
    ServerError,
    UnavailableError,
)
from reward_client.grpc_errors import was_reached
from reward_client.introductions import Introductions
from reward_client.log import LOG
from reward_client.options import Terms
from reward_client.results import ModelInfo, Rewards
from reward_client.steps import Hedged, Pause, Steps, T
from reward_client.tracing import span

_PASSING = (UnavailableError, ModelNotReadyError)


@dataclass(frozen=True, slots=True)
class Answer:
    """The rewards [B] of one request, the model that gave them, and when they arrived."""

    rewards: Rewards
    model: ModelInfo
    heard_at: float

    @property
    def version(self) -> int:
        """Version of the model."""
        return self.model.version


class BatchTooLargeError(Exception):
    """A request has more rows than the server takes; the server's limit is known now."""


class Attempts:
    """Requests that avoid servers that are down.

    Args:
        asking: how a server is asked.
        introductions: what is known of the servers.
        retry: how often to ask; the client's if None.
    """

    def __init__(
        self, asking: Asking, introductions: Introductions, retry: Retry | None = None
    ) -> None:
        self._asking = asking
        self._introductions = introductions
        self._endpoints = asking.endpoints
        self._retry = retry or asking.options.connection.retry or Retry()

    def answer(
        self, ids: NDArray[np.int32], terms: Terms, version: int | None = None
    ) -> Steps[Answer]:
        """The rewards of some rows [B, S].

        Args:
            ids: the rows.
            terms: the call's.
            version: version of the model; servers that have it are asked first.

        Raises:
            BatchTooLargeError: the rows have to be split again.
            RewardError: as in `RewardClient.score`.
        """
        return self.until_served(terms, lambda one: self._infer(one, ids, terms), version)

    def until_served(
        self, terms: Terms, action: Callable[[Endpoint], Steps[T]], version: int | None = None
    ) -> Steps[T]:
        """Do the action at the next server; while that is down, at others, or later."""
        before: ServerError | None = None
        for attempt in itertools.count(1):
            endpoint = self._endpoints.pick(version)
            try:
                return (yield from self._hedged(endpoint, action, terms))
            except DeadlineError as error:
                error.attempts = attempt
                if before is not None and error.code is None:  # there was no time left to ask
                    raise before from None
                raise
            except (*_PASSING, OverloadedError) as error:
                error.attempts = attempt
                yield from self._pause(attempt, error, terms)
                self._asking.counters.retried()
                before = error
        raise AssertionError("the loop above ends by itself")

    def _pause(self, attempt: int, error: ServerError, terms: Terms) -> Steps[None]:
        """Wait before the next attempt; raise the error if there is none."""
        retry, n_servers = self._retry, len(self._endpoints.all)
        is_patient = retry.attempts is None
        attempts = "any number" if retry.attempts is None else retry.attempts + n_servers - 1
        if attempt == attempts or (isinstance(error, OverloadedError) and not is_patient):
            raise error
        is_paid = not was_reached(error) or self._asking.budget.take()
        if not (is_paid or is_patient):
            LOG.info("%s; not asked again: the retry budget is spent", error)
            raise error
        LOG.info("%s; attempt %d of %s", error, attempt, attempts)
        pause_s = 0.0
        if isinstance(error, OverloadedError) or not self._endpoints.any_present():
            pause_s = retry.pause_s(attempt)
        if not is_paid:
            pause_s = retry.longest_pause_s
        left_s = terms.deadline - time.monotonic()
        if pause_s:
            yield Pause(max(min(pause_s, left_s), 0.0))
        if time.monotonic() >= terms.deadline:
            raise error

    def _hedged(
        self, endpoint: Endpoint, action: Callable[[Endpoint], Steps[T]], terms: Terms
    ) -> Steps[T]:
        """Do the action at a server, and at another one as well if that is silent."""
        first = self._noted(endpoint, action)
        if len(self._endpoints.all) == 1 and not endpoint.has_many:
            return (yield from first)
        began = time.monotonic()
        after_s = min(self._retry.hedge_after_s, (terms.deadline - began) / 2)
        second = partial(self._second, endpoint, action, began)
        result: T = yield Hedged(first, second, max(after_s, 0.0))
        return result

    def _second(
        self, endpoint: Endpoint, action: Callable[[Endpoint], Steps[T]], began: float
    ) -> Steps[T] | None:
        is_silent = endpoint.silence.heard_at < began
        other = self._endpoints.another(endpoint) if is_silent or endpoint.has_many else None
        if other is None or not self._asking.budget.take():
            return None
        LOG.info("%s is silent; %s is asked as well", endpoint.url, other.url)
        self._asking.counters.retried()
        return self._noted(other, action)

    def _noted(self, endpoint: Endpoint, action: Callable[[Endpoint], Steps[T]]) -> Steps[T]:
        """Do the action at a server; mark it as away if it is down or not ready."""
        try:
            return (yield from action(endpoint))
        except _PASSING:
            self._endpoints.mark_away(endpoint)
            raise

    def _infer(self, endpoint: Endpoint, ids: NDArray[np.int32], terms: Terms) -> Steps[Answer]:
        info = yield from self._introductions.current(endpoint, terms)
        if len(ids) > info.max_batch_rows:
            raise BatchTooLargeError
        request = wire.request_of(
            ids,
            model=self._asking.options.model,
            version=terms.version,
            priority_level=terms.priority_level,
        )
        wire.set_time_left(request, terms.time_left_s(endpoint.url))
        with span("attempt", terms.span) as current:
            current.set("server.address", endpoint.url)
            try:
                response = yield from self._asking.ask(
                    endpoint, "ModelInfer", request, terms, current
                )
            except RejectedError as error:
                yield from self._check_size(endpoint, len(ids), terms, error)
                raise
            version = wire.version_of(response)
            current.set("model.version", version)
            rewards, heard_at = wire.rewards_of(response, len(ids)), time.monotonic()
        self._asking.budget.answered()
        model = info.of_version(version) if version in endpoint.versions else None
        if model is None:
            info = yield from self._introductions.hold_version(endpoint, version, terms)
            model = info.of_version(version) or ModelInfo(version)
        endpoint.version = version
        return Answer(rewards, model, heard_at)

    def _check_size(
        self, endpoint: Endpoint, n_rows: int, terms: Terms, error: RejectedError
    ) -> Steps[None]:
        """Raise `BatchTooLargeError` if the server now takes fewer rows than were sent."""
        if error.code != "INVALID_ARGUMENT" or n_rows == 1:
            return
        info = yield from self._introductions.anew(endpoint, terms)
        if n_rows > info.max_batch_rows:
            raise BatchTooLargeError from error
