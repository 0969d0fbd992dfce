"""Many small calls as few large ones: what waits while requests are on their way goes together."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from reward_client.aio import AsyncRewardClient
from reward_client.errors import NonFiniteRewardError, RewardError
from reward_client.tokens import check_texts

MAX_ROWS = 128  # of one call
MAX_CALLS = 4  # on their way together


@dataclass(frozen=True, slots=True, eq=False)
class _Item:
    texts: Sequence[str]
    answer: "asyncio.Future[list[float]]"


class Batcher:
    """Scores texts of many tasks of one event loop through one client.

    Nobody waits for company: with a call to spare, an item goes at once. An item that cannot
    be scored fails by itself.

    Args:
        client: an open client; it stays the caller's to close.
    """

    def __init__(self, client: AsyncRewardClient) -> None:
        self._client = client
        self._waiting: deque[_Item] = deque()
        self._calls: set[asyncio.Task[None]] = set()

    async def rewards(self, texts: Sequence[str]) -> list[float]:
        """The rewards of an item's texts, in their order.

        Raises:
            InvalidInputError: a text cannot be scored; `row` says which.
            RewardError: as `RewardClient.score`.
        """
        check_texts(texts)
        answer: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Item(texts, answer))
        self._start()
        return await answer

    def _start(self) -> None:
        while self._waiting and len(self._calls) < MAX_CALLS:
            task = asyncio.ensure_future(self._call(self._take()))
            self._calls.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._calls.discard(task)
        self._start()

    def _take(self) -> list[_Item]:
        """The next items, as many as fit into a call; at least one."""
        items: list[_Item] = []
        n_rows = 0
        while self._waiting and (not items or n_rows + len(self._waiting[0].texts) <= MAX_ROWS):
            item = self._waiting.popleft()
            if not item.answer.cancelled():  # else nobody waits for it any more
                items.append(item)
                n_rows += len(item.texts)
        return items

    async def _call(self, items: list[_Item]) -> None:
        try:
            scores = await self._client.score([text for item in items for text in item.texts])
        except NonFiniteRewardError as error:
            if len(items) == 1:
                _fail(items, error)
                return
            for item in items:  # one of them is to blame: each by itself
                await self._call([item])
        except RewardError as error:
            _fail(items, error)
        except BaseException as error:
            _fail(items, error)
            raise
        else:
            rewards = iter(scores.rewards.tolist())
            for item in items:
                found = [next(rewards) for _ in item.texts]
                if not item.answer.done():
                    item.answer.set_result(found)


def _fail(items: list[_Item], error: BaseException) -> None:
    for item in items:
        if not item.answer.done():
            item.answer.set_exception(error)
