"""The reward model as verl's custom reward function.

    reward.custom_reward_function.path=pkg://reward_client.rl.verl
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.url=host:8001

verl calls it once for each response, many at a time in one event loop, and passes the data
set's `extra_info`, not the prompt: put the context there, as messages or as the text that the model
was trained on.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from reward_client.aio import AsyncRewardClient
from reward_client.connection import TLS, Connection, Retry
from reward_client.errors import InvalidInputError
from reward_client.rl.batcher import Batcher
from reward_contract import MODEL_NAME

__all__ = ["compute_score"]

_BATCHERS: dict[asyncio.AbstractEventLoop, dict["_Settings", Batcher]] = {}

_VERLS_OWN = frozenset({"reward_router_address", "reward_model_tokenizer"})  # passed by verl 0.9


@dataclass(frozen=True, slots=True)
class _Settings:
    """What `reward_kwargs` may hold: plain values, as in verl's configuration."""

    url: str | tuple[str, ...] = "localhost:8001"
    context_key: str = "context"
    timeout_s: float = 300.0
    truncation: str = "left"
    model: str = MODEL_NAME
    model_version: int | None = None
    chat_format: str | None = None
    attempts: int | None = None
    tls: bool = False
    tls_roots: str | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "_Settings":
        """The settings that are given, checked and hashable."""
        unknown = sorted(given.keys() - {one.name for one in fields(cls)} - _VERLS_OWN)
        if unknown:
            known = ", ".join(one.name for one in fields(cls))
            raise InvalidInputError(
                f"reward_kwargs has unknown names: {', '.join(unknown)}; known are {known}"
            )
        known_ones = {name: value for name, value in given.items() if name not in _VERLS_OWN}
        url, headers = given.get("url", cls().url), given.get("headers") or {}
        if given.get("truncation", "left") != "left":
            raise InvalidInputError(
                f"truncation is {given['truncation']!r}; verl passes one response at a time, "
                "without its group, and only 'left' cuts each one separately"
            )
        known_ones["url"] = url if isinstance(url, str) else tuple(url)
        known_ones["headers"] = tuple(dict(headers).items())
        return cls(**known_ones)

    def client(self) -> AsyncRewardClient:
        """A client with these settings."""
        files = (self.tls_roots, self.tls_certificate, self.tls_key)
        return AsyncRewardClient(
            self.url,
            timeout_s=self.timeout_s,
            priority="bulk",
            model=self.model,
            model_version=self.model_version,
            chat_format=self.chat_format,
            connection=Connection(
                tls=TLS(*files) if self.tls or any(files) else None,
                metadata=dict(self.headers),
                retry=Retry(attempts=self.attempts),
            ),
        )


async def compute_score(
    data_source: str,  # noqa: ARG001
    solution_str: str,
    ground_truth: object,  # noqa: ARG001
    extra_info: Mapping[str, object] | None = None,
    **reward_kwargs: Any,  # noqa: ANN401  # checked by name
) -> float:
    """The reward of one response.

    Args:
        data_source: passed by verl; ignored.
        solution_str: the response.
        ground_truth: passed by verl; ignored.
        extra_info: holds the context: a string, to which the response is joined unchanged, or
            messages, which are rendered in the model's format, with the response as their reply.
        reward_kwargs: `url` of one or several servers, `context_key` (the key of the context in
            `extra_info`), `timeout_s` (seconds within which the reward must arrive, a restart of
            the server included), `attempts` (as in `Retry`; None waits), `model`, `model_version`,
            `chat_format` (a format's name; the model's own if left out), `truncation` (`left`),
            `tls`, `tls_roots`, `tls_certificate`, `tls_key`, `headers`; and what verl adds to them,
            which is ignored.

    Raises:
        InvalidInputError: there is no context, or `reward_kwargs` has an unknown name or a
            `truncation` other than `left`.
        NoFormatError: the context has messages, and the model names no format.
        RewardError: as in `RewardClient.score`.
    """
    settings = _Settings.of(reward_kwargs)
    context = (extra_info or {}).get(settings.context_key)
    if isinstance(context, np.ndarray):  # a list comes back from Parquet as an array
        context = context.tolist()
    if not isinstance(context, str | Sequence):
        raise InvalidInputError(
            f"extra_info has no {settings.context_key!r} that is a text or messages; put what "
            "precedes the response there, or name its key with reward_kwargs.context_key"
        )
    (reward,) = await _batcher(settings).rewards([solution_str], context)
    return reward


def _batcher(settings: _Settings) -> Batcher:
    """The batcher of this event loop with these settings, made if there is none."""
    loop = asyncio.get_running_loop()
    if loop not in _BATCHERS:
        for ended in [one for one in _BATCHERS if one.is_closed()]:
            del _BATCHERS[ended]
        _BATCHERS[loop] = {}
    batchers = _BATCHERS[loop]
    if settings not in batchers:
        batchers[settings] = Batcher(settings.client(), timeout_s=settings.timeout_s)
    return batchers[settings]
