"""The reward model as verl's custom reward function.

    reward.custom_reward_function.path=pkg://reward_client.rl.verl
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.url=host:8001

verl calls it once for each response, many at a time in one event loop, and passes the data
set's `extra_info`, not the prompt: put the context there, as the text that was trained on.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from reward_client.aio import AsyncRewardClient
from reward_client.errors import InvalidInputError
from reward_client.rl.batcher import Batcher

_BATCHERS: dict[asyncio.AbstractEventLoop, dict[tuple[Any, ...], Batcher]] = {}


async def compute_score(  # noqa: PLR0913  # verl's signature
    data_source: str,  # noqa: ARG001
    solution_str: str,
    ground_truth: object,  # noqa: ARG001
    extra_info: Mapping[str, object] | None = None,
    *,
    url: str | Sequence[str] = "localhost:8001",
    context_key: str = "context",
    timeout_s: float = 300.0,
    **_verl: object,
) -> float:
    """The reward of one response.

    Args:
        data_source: not looked at; verl's.
        solution_str: the response.
        ground_truth: not looked at; verl's.
        extra_info: holds the context, a string.
        url: the server's host and gRPC port, or several; by `reward_kwargs`.
        context_key: where in `extra_info` the context is; by `reward_kwargs`.
        timeout_s: seconds until it has to be there; by `reward_kwargs`.

    Raises:
        InvalidInputError: there is no context.
        RewardError: as `RewardClient.score`.
    """
    context = (extra_info or {}).get(context_key)
    if not isinstance(context, str):
        raise InvalidInputError(
            f"extra_info has no string {context_key!r}; put the text before the response there, "
            "or name its key with reward_kwargs.context_key"
        )
    (reward,) = await _batcher(url, timeout_s).rewards([context + solution_str])
    return reward


def _batcher(url: str | Sequence[str], timeout_s: float) -> Batcher:
    """One for each event loop and way of asking."""
    loop = asyncio.get_running_loop()
    if loop not in _BATCHERS:
        for ended in [one for one in _BATCHERS if one.is_closed()]:
            del _BATCHERS[ended]
        _BATCHERS[loop] = {}
    batchers = _BATCHERS[loop]
    key = (url if isinstance(url, str) else tuple(url), timeout_s)
    if key not in batchers:
        client = AsyncRewardClient(url, timeout_s=timeout_s, priority="bulk")
        batchers[key] = Batcher(client, timeout_s=timeout_s)
    return batchers[key]
