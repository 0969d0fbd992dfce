"""Reward functions for TRL's trainers: `GRPOTrainer(reward_funcs=TrlReward("host:8001"), ...)`.

TRL 1.x calls a reward function with `prompts`, `completions` and the data set's other columns
by name, each a list with one item for each completion, and expects a list of floats. An object
whose `__call__` is a coroutine function runs concurrently with other asynchronous ones.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from reward_client.aio import AsyncRewardClient
from reward_client.client import RewardClient
from reward_client.connection import Connection, patient
from reward_client.encoding import Group
from reward_client.rl.text import (
    Messages,
    completion_text,
    in_groups,
    in_input_order,
    reply_of,
)
from reward_contract import MODEL_NAME
from reward_text import Format, Truncation

__all__ = ["AsyncTrlReward", "TrlReward"]

Texts: TypeAlias = Sequence[str] | Sequence[Messages]


class _Settings:
    """The arguments of both classes. They are pickled; connections are made where needed."""

    def __init__(  # noqa: PLR0913  # by keyword, each with a default
        self,
        url: str | Sequence[str] = "localhost:8001",
        *,
        name: str = "gpt2_reward",
        render: Callable[[Messages], str] | None = None,
        timeout_s: float = 300.0,
        truncation: Truncation = "left",
        connection: Connection | None = None,
        model: str = MODEL_NAME,
        model_version: int | None = None,
        chat_format: Format | str | None = None,
    ) -> None:
        self.__name__ = name  # TRL logs `rewards/NAME/mean`
        self._url = url
        self._render = render
        self._timeout_s = timeout_s
        self._truncation = truncation
        self._connection = connection
        self._model = model
        self._model_version = model_version
        self._chat_format = chat_format
        self._client: Any = None
        self._owner: object = None

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_client": None, "_owner": None}

    def _groups(self, prompts: Texts, completions: Texts) -> list[Group]:
        render = self._render
        if render is None:
            replies = [one if isinstance(one, str) else reply_of(one) for one in completions]
            return in_groups(prompts, replies)
        contexts = [one if isinstance(one, str) else render(one) for one in prompts]
        candidates = [
            one if isinstance(one, str) else completion_text(render(one)) for one in completions
        ]
        return in_groups(contexts, candidates)

    def _options(self) -> dict[str, Any]:
        return {
            "timeout_s": self._timeout_s,
            "truncation": self._truncation,
            "priority": "bulk",
            "model": self._model,
            "model_version": self._model_version,
            "connection": patient(self._connection),
            "chat_format": self._chat_format,
        }


class TrlReward(_Settings):
    """The reward model as a TRL reward function.

    Args:
        url: the server's host and gRPC port, or several.
        name: the name under which TRL logs it.
        render: turns conversational data into text, if the formats do not suffice. Prompt and
            completion are rendered separately and joined, without the line break at the
            completion's end. If None, prompts are rendered in the model's format, and completions
            are replies, as in `RewardClient.rank`.
        timeout_s: seconds for one batch of completions, a restart of the server included.
        truncation: as in `RewardClient`.
        connection: as in `RewardClient`; if a server is down, calls wait for it as long as
            `timeout_s` allows, unless `retry` says otherwise.
        model: as in `RewardClient`, like the two below.
        model_version: the version to ask; the server's choice if None.
        chat_format: the format for conversations; the model's own if None.

    Example:
        >>> GRPOTrainer(model, reward_funcs=TrlReward("reward:8001"), ...)  # doctest: +SKIP
    """

    def __call__(self, prompts: Texts, completions: Texts, **_columns: object) -> list[float]:
        """Rewards, one for each completion, in their order.

        Raises:
            RewardError: as in `RewardClient.rank_many`.
        """
        client: RewardClient = self._connected()
        return in_input_order(client.rank_many(self._groups(prompts, completions)))

    def _connected(self) -> RewardClient:
        if self._owner != os.getpid():  # a fork cannot use its parent's connections
            self._client, self._owner = RewardClient(self._url, **self._options()), os.getpid()
        client: RewardClient = self._client
        return client


class AsyncTrlReward(_Settings):
    """`TrlReward` as an asynchronous reward function of TRL; same arguments."""

    async def __call__(self, prompts: Texts, completions: Texts, **_columns: object) -> list[float]:
        """See `TrlReward.__call__`."""
        client: AsyncRewardClient = self._connected()
        return in_input_order(await client.rank_many(self._groups(prompts, completions)))

    def _connected(self) -> AsyncRewardClient:
        loop = asyncio.get_running_loop()
        if self._owner is not loop:
            self._client, self._owner = AsyncRewardClient(self._url, **self._options()), loop
        client: AsyncRewardClient = self._client
        return client
