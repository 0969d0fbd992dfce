"""Many small calls as few large ones: what waits while requests are in flight is sent together."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from reward_client.aio import AsyncRewardClient
from reward_client.errors import (
    DeadlineError,
    NonFiniteRewardError,
    OverloadedError,
    RewardError,
)
from reward_client.wire import listed
from reward_text import check_texts

MAX_ROWS = 128  # per call
MAX_CALLS = 4  # in flight at once
MAX_WAITING = 10_000  # items; if more waited, they would only time out
WHERE = "this process"  # the `url` of errors that are raised here


@dataclass(frozen=True, slots=True, eq=False)
class _Item:
    texts: Sequence[str]
    answer: "asyncio.Future[list[float]]"


class Batcher:
    """Scores texts of many tasks of one event loop through one client.

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

    async def rewards(self, texts: Sequence[str]) -> list[float]:
        """The rewards of an item's texts, in their order.

        Raises:
            InvalidInputError: a text cannot be scored; `row` says which.
            OverloadedError: too many items are waiting already.
            DeadlineError: it took too long.
            RewardError: as in `RewardClient.score`.
        """
        check_texts(texts)
        if len(self._waiting) >= MAX_WAITING:
            raise OverloadedError(
                f"{MAX_WAITING} items are waiting already; send fewer at once, or try again later",
                url=WHERE,
            )
        answer: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Item(texts, answer))
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
        while self._waiting and (not items or n_rows + len(self._waiting[0].texts) <= MAX_ROWS):
            item = self._waiting.popleft()
            if not item.answer.cancelled():  # else its caller no longer waits
                items.append(item)
                n_rows += len(item.texts)
        return items

    async def _call(self, items: list[_Item]) -> None:
        try:
            while items:
                try:
                    scores = await self._client.score([text for one in items for text in one.texts])
                except NonFiniteRewardError as error:
                    items = _without_poisoned(items, error)
                else:
                    _answer(items, scores.rewards.tolist())
                    return
        except RewardError as error:
            _fail(items, error)
        except BaseException as error:
            _fail(items, error)
            raise


def _answer(items: list[_Item], rewards: list[float]) -> None:
    left = iter(rewards)
    for item in items:
        found = list(islice(left, len(item.texts)))
        if not item.answer.done():
            item.answer.set_result(found)


def _without_poisoned(items: list[_Item], error: NonFiniteRewardError) -> list[_Item]:
    """Fail the items that hold the error's rows, each with its own rows, and return the others."""
    poisoned, others, first = set(error.rows), [], 0
    for item in items:
        rows = tuple(i for i in range(len(item.texts)) if first + i in poisoned)
        first += len(item.texts)
        if rows:
            _fail([item], NonFiniteRewardError(f"rows {listed(rows)} have no reward", rows=rows))
        else:
            others.append(item)
    return others


def _fail(items: list[_Item], error: BaseException) -> None:
    for item in items:
        if not item.answer.done():
            item.answer.set_exception(error)
