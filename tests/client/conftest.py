import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from waiting import HUNG_S

from reward_client import AsyncRewardClient, RewardClient, endpoints, silence
from reward_client.testing import FakeServer


def first_token(ids: NDArray[np.int32]) -> NDArray[np.float32]:
    """A reward that a test can predict."""
    return (ids[:, 0] / 100).astype(np.float32)


class Awaited:
    """The asyncio client on an event loop of its own, called like the blocking one."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._client = AsyncRewardClient(*arguments, **options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def __enter__(self) -> "Awaited":
        try:
            self._wait_for(self._client.__aenter__())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._client, name)
        if not asyncio.iscoroutinefunction(attribute):
            return attribute
        return lambda *arguments, **options: self._wait_for(attribute(*arguments, **options))

    def close(self) -> None:
        self._wait_for(self._client.close())
        self._stop()

    def _wait_for(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer(first_token, max_batch_rows=4) as server:
        yield server


class Clock:
    """A stopped clock, by which a client decides whether it still knows a server."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (endpoints, silence):
        monkeypatch.setattr(module, "time", clock)
    return clock


Connect = Callable[..., RewardClient]


@pytest.fixture(params=[RewardClient, Awaited], ids=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Makes clients, of each kind in turn, and closes them."""
    with ExitStack() as stack:

        def make(*arguments: Any, **options: Any) -> RewardClient:
            client = request.param(*arguments, **options)
            stack.callback(client.close)
            return client

        yield make


@pytest.fixture
def client(fake: FakeServer, connect: Connect) -> RewardClient:
    return connect(fake.url, timeout_s=HUNG_S)
