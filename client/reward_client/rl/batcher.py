"""Many small calls as few large ones: what waits while requests are in flight is sent together."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reward_client.aio import AsyncRewardClient
from reward_client.errors import (
    DeadlineError,
    NonFiniteRewardError,
    OverloadedError,
    RewardError,
)
from reward_client.results import Ranking
from reward_client.wire import listed
from reward_text import Context, check_texts

MAX_ROWS = 128  # per call
MAX_CALLS = 4  # in flight at once
MAX_WAITING = 10_000  # items; if more waited, they would only time out
WHERE = "this process"  # the `url` of errors that are raised here


@dataclass(frozen=True, slots=True, eq=False)
class _Item:
    candidates: Sequence[str]
    context: Context
    answer: "asyncio.Future[list[float]]"

    def settle(self, ranking: Ranking) -> None:
        """Hand over the rewards, or why there are none."""
        rewards = ranking.rewards
        rows = tuple(np.flatnonzero(~np.isfinite(rewards)).tolist())
        if (error := ranking.error) is not None:
            # the number of its group is that of the call, of which the caller knows nothing
            text = str(error).removeprefix(f"group {error.group}: ")
            self.fail(type(error)(text, row=error.row))
        elif rows:
            self.fail(NonFiniteRewardError(f"rows {listed(rows)} have no reward", rows=rows))
        elif not self.answer.done():
            self.answer.set_result(rewards.tolist())

    def fail(self, error: BaseException) -> None:
        """Hand over an error, unless the caller has stopped waiting."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Batcher:
    """Scores candidates of many tasks of one event loop through one client.

    No item waits for others: if a call is free, an item is sent at once. An item that cannot be
    scored fails without the others of its call.

    Args:
        client: an open client, which the caller closes.
        timeout_s: seconds that an item may take, waiting for a free call included.
    """

    def __init__(self, client: AsyncRewardClient, *, timeout_s: float = 60.0) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._waiting: deque[_Item] = deque()
        self._calls: set[asyncio.Task[None]] = set()

    async def rewards(self, candidates: Sequence[str], context: Context = "") -> list[float]:
        """The rewards of an item's candidates, in their order.

        Args:
            candidates: whole texts, if they have no context.
            context: as `RewardClient.rank` takes it.

        Raises:
            InvalidInputError: a candidate cannot be scored, and `row` says which; or the context.
            OverloadedError: too many items are waiting already.
            DeadlineError: it took too long.
            RewardError: as in `RewardClient.score`.
        """
        check_texts(candidates)
        if len(self._waiting) >= MAX_WAITING:
            raise OverloadedError(
                f"{MAX_WAITING} items are waiting already; send fewer at once, or try again later",
                url=WHERE,
            )
        answer: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Item(candidates, context, answer))
        self._start()
        try:
            return await asyncio.wait_for(answer, self._timeout_s)
        except asyncio.TimeoutError as error:  # the name that Python 3.10 has as well
            raise DeadlineError(
                f"no reward within {self._timeout_s:g} s, waiting for other calls included",
                url=WHERE,
            ) from error

    def _start(self) -> None:
        while self._waiting and len(self._calls) < MAX_CALLS:
            task = asyncio.ensure_future(self._call(self._take()))
            self._calls.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._calls.discard(task)
        self._start()

    def _take(self) -> list[_Item]:
        """The next items, as many as fit into a call; the first always fits."""
        items: list[_Item] = []
        n_rows = 0
        while self._waiting and (
            not items or n_rows + len(self._waiting[0].candidates) <= MAX_ROWS
        ):
            item = self._waiting.popleft()
            if not item.answer.cancelled():  # else its caller no longer waits
                items.append(item)
                n_rows += len(item.candidates)
        return items

    async def _call(self, items: list[_Item]) -> None:
        groups = [(item.context, item.candidates) for item in items]
        try:
            rankings = await self._client.rank_many(groups, on_error="nan")
        except RewardError as error:
            for item in items:
                item.fail(error)
        except BaseException as error:
            for item in items:
                item.fail(error)
            raise
        else:
            for item, ranking in zip(items, rankings, strict=True):
                item.settle(ranking)
