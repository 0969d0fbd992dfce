"""Many rows sent in several requests, with answers that all come from one model version."""

import contextlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reward_client import wire
from reward_client.attempts import Answer, Attempts, BatchTooLargeError
from reward_client.endpoints import Endpoints
from reward_client.introductions import Introductions
from reward_client.log import LOG
from reward_client.options import Terms
from reward_client.results import ModelInfo
from reward_client.steps import Steps, Together

RESCORES = 16  # times that parts of a call are scored again because the model was replaced
FRUITLESS = 4  # of them, in a row, without an answer from the wanted version: it is gone


class Parts:
    """Asks for the rewards of any number of rows.

    Args:
        endpoints: the servers.
        introductions: what is known of them.
        attempts: how they are asked.
    """

    def __init__(
        self, endpoints: Endpoints, introductions: Introductions, attempts: Attempts
    ) -> None:
        self._endpoints = endpoints
        self._introductions = introductions
        self._attempts = attempts

    def model(self, terms: Terms) -> Steps[ModelInfo]:
        """The model that will probably answer; a server is asked if none is known yet."""
        known = self._endpoints.model(terms.version)
        if known is not None:
            return known
        return (
            yield from self._attempts.until_served(
                terms, lambda one: self._introductions.model(one, terms)
            )
        )

    def newest_model(self, terms: Terms) -> Steps[ModelInfo]:
        """The model that a server names now: the one asked for, or the newest."""
        info = yield from self._attempts.until_served(
            terms, lambda one: self._introductions.anew(one, terms)
        )
        return info.of_version(int(terms.version or 0)) or info.models[-1]

    def answers(
        self, ids: NDArray[np.int32], terms: Terms, version: int | None = None
    ) -> Steps[list[Answer]]:
        """The answers for rows [B, S], in their order and of one version.

        Args:
            ids: the rows.
            terms: the call's.
            version: version of the model; servers that have it are asked first.
        """
        answers = None
        while answers is None:
            max_rows = yield from self._max_batch_rows(terms)
            with contextlib.suppress(BatchTooLargeError):  # of a server that was not known before
                batches = list(wire.batches(ids, max_rows))
                answers = yield from self._of_batches(batches, terms, version)
        return answers

    def _max_batch_rows(self, terms: Terms) -> Steps[int]:
        """Rows that fit into a request to any server known so far."""
        known = self._endpoints.max_batch_rows()
        if known is not None:
            return known
        info = yield from self._attempts.until_served(
            terms, lambda one: self._introductions.current(one, terms)
        )
        return info.max_batch_rows

    def _of_batches(
        self, batches: list[NDArray[np.int32]], terms: Terms, version: int | None
    ) -> Steps[list[Answer]]:
        if len(batches) == 1:
            return [(yield from self._attempts.answer(batches[0], terms, version))]
        answers: list[Answer] = yield Together(
            [self._attempts.answer(batch, terms, version) for batch in batches]
        )
        wanted, n_fruitless = _latest(answers), 0
        for _ in range(RESCORES):
            stale = [i for i, one in enumerate(answers) if one.version != wanted]
            if not stale:
                break
            LOG.info("two versions answered one call: %d requests are repeated", len(stale))
            again: list[Answer] = yield Together(
                [self._attempts.answer(batches[i], terms, wanted) for i in stale]
            )
            for i, answer in zip(stale, again, strict=True):
                answers[i] = answer
            n_fruitless = 0 if any(one.version == wanted for one in again) else n_fruitless + 1
            if n_fruitless == FRUITLESS:
                wanted, n_fruitless = _latest(answers), 0
        wire.check_one_version([answer.version for answer in answers])
        return answers


def _latest(answers: Sequence[Answer]) -> int:
    """The version that answered last: the one that stays when a server replaces its model."""
    return max(answers, key=lambda one: one.heard_at).version
