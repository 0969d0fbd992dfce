"""The client that waits: one object, any number of threads."""

import math
import threading
import time
from collections.abc import Sequence
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferResult
from tritonclient.utils import InferenceServerException

from reward_client import wire
from reward_client.contract import MODEL_NAME
from reward_client.errors import ModelNotFoundError, RewardError
from reward_client.tokens import Tokenizer, joined
from reward_client.wire import RankedCandidate, Rewards, ServerInfo


class RewardClient:
    r"""Scores texts with a reward model on Triton.

    It connects at the first call, or on entering a `with` block, and then compares the
    server's contract with its own. One client a process is enough; it may be used by
    several threads at once.

    Args:
        url: host and gRPC port of the server.
        timeout_s: seconds that one call may take as a whole.
        model: name of the model in the server's repository.
        model_version: the version to ask; the server's choice if None.

    Raises:
        ValueError: `timeout_s` is not above 0 and finite.

    Example:
        >>> with RewardClient("localhost:8001") as client:  # doctest: +SKIP
        ...     best, *others = client.rank("Hi, how are you?\n", ["Fine, and you?", "No."])
    """

    def __init__(
        self,
        url: str = "localhost:8001",
        *,
        timeout_s: float = 30.0,
        model: str = MODEL_NAME,
        model_version: int | None = None,
    ) -> None:
        if not (timeout_s > 0 and math.isfinite(timeout_s)):
            raise ValueError(f"timeout_s must be above 0 and finite, not {timeout_s}")
        self._url = url
        self._timeout_s = timeout_s
        self._model = model
        self._version = "" if model_version is None else str(model_version)
        self._tokenizer = Tokenizer()
        self._channel = InferenceServerClient(url)
        self._connecting = threading.Lock()
        self._server: ServerInfo | None = None
        self._answered: int | None = None

    def __enter__(self) -> "RewardClient":
        try:
            self.connect()
        except RewardError:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the client cannot be used afterwards."""
        self._channel.close()

    @property
    def answered_version(self) -> int | None:
        """The model version that gave the newest rewards, whichever thread asked; None before."""
        return self._answered

    def connect(self) -> ServerInfo:
        """Ask the server who it is, and hold its model to the contract; once.

        Raises:
            ContractError: it serves a model that this client does not speak to.
            ServerError: it could not answer.
        """
        with self._connecting:
            if self._server is None:
                self._server = self._ask_server(time.monotonic() + self._timeout_s)
            return self._server

    def score(self, texts: Sequence[str]) -> Rewards:
        """The reward of each text.

        Args:
            texts: what to score, each a context with a candidate behind it. Of a text, the
                last 256 tokens count. More than the server's largest batch are sent in
                several requests.

        Returns:
            float32 [n], raw logits in the order of `texts`; higher is better.

        Raises:
            InvalidInputError: a text cannot be scored; `row` says which.
            ContractError: the server does not serve the model this client speaks to, or
                exchanged its version between two requests of this call.
            ServerError: it could not answer, in one of the ways of `reward_client.errors`.
            NonFiniteRewardError: it answered NaN; `rows` says for which texts.
        """
        ids = self._tokenizer.encode_rows(texts)
        rewards = self._score_ids(ids)
        wire.check_finite(rewards)
        return rewards

    def rank(self, context: str, candidates: Sequence[str]) -> list[RankedCandidate]:
        """The candidates with their rewards, best first; equal ones in the order given.

        The text that is scored is `context + candidate`, without anything between.

        Raises:
            InvalidInputError: the context or a candidate cannot be scored; `row` counts
                candidates, and is None where the context is to blame.
            RewardError: as `score`.
        """
        return wire.ranked(candidates, self.score(joined(context, candidates)))

    def _score_ids(self, ids: NDArray[np.int32]) -> Rewards:
        """int32 [B, S] to float32 [B]."""
        deadline = time.monotonic() + self._timeout_s
        max_rows = self.connect().max_batch_rows
        rewards, versions = [np.empty(0, np.float32)], []
        for batch in wire.batches(ids, max_rows):
            result = self._infer(batch, deadline)
            rewards.append(wire.rewards_of(result, len(batch)))
            versions.append(wire.version_of(result))
        wire.check_one_version(versions)
        self._answered = versions[-1] if versions else self._answered
        return np.concatenate(rewards)

    def _infer(self, ids: NDArray[np.int32], deadline: float) -> InferResult:
        try:
            return self._channel.infer(
                self._model,
                [wire.infer_input(ids)],
                model_version=self._version,
                outputs=wire.REQUESTED,
                client_timeout=_seconds_until(deadline),
            )
        except InferenceServerException as error:
            raise wire.server_error(error, self._url) from error

    def _ask_server(self, deadline: float) -> ServerInfo:
        channel, model, version = self._channel, self._model, self._version
        try:
            server = channel.get_server_metadata(client_timeout=_seconds_until(deadline))
            metadata = channel.get_model_metadata(
                model, version, client_timeout=_seconds_until(deadline)
            )
            response = channel.get_model_config(
                model, version, client_timeout=_seconds_until(deadline)
            )
        except InferenceServerException as error:
            raise wire.server_error(error, self._url) from error
        max_rows = wire.check_config(response.config, self._url)
        versions = tuple(sorted(int(number) for number in metadata.versions))
        if not versions:
            raise ModelNotFoundError(f"{self._url} has no version of {model}", url=self._url)
        return ServerInfo(self._url, server.name, server.version, model, versions, max_rows)


def _seconds_until(deadline: float) -> float:
    """At least a little, so that an expired deadline is gRPC's to report."""
    return max(deadline - time.monotonic(), 0.001)
