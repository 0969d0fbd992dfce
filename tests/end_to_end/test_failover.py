"""Two real servers, one of which is killed while calls are in flight."""

import asyncio
import itertools
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from reward_client import AsyncRewardClient, RewardClient, Tokenizer
from reward_export.checkpoint import load
from reward_export.conversations import conversations
from reward_serve.server import ServerOptions, TritonServer

N_CALLS = 2000
KILL_AFTER = 400


@pytest.fixture
def servers(repository: Path) -> Iterator[list[TritonServer]]:
    options = ServerOptions(repository, grpc_port=0, http_port=0, metrics_port=0)
    with ExitStack() as stack:
        yield [stack.enter_context(TritonServer(options)) for _ in range(2)]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [turn for dialogue in conversations() for turn in dialogue.turns][:200]


@pytest.fixture(scope="module")
def wanted(checkpoint_folder: Path, texts: list[str]) -> np.ndarray:
    ids = Tokenizer().encode_rows(texts)
    return load(str(checkpoint_folder)).rewards(ids)[:, 0]


class Killer:
    """Kills a server's process group once `KILL_AFTER` calls have been answered."""

    def __init__(self, server: TritonServer) -> None:
        self.n_answered = itertools.count(1)
        self._pid = server.pid
        self.done = threading.Event()

    def count(self) -> None:
        if next(self.n_answered) == KILL_AFTER:
            os.killpg(self._pid, signal.SIGKILL)
            self.done.set()


def test_every_call_of_threads_is_answered(
    servers: list[TritonServer], texts: list[str], wanted: np.ndarray
) -> None:
    killer = Killer(servers[0])

    def call(number: int) -> float:
        reward = client.score([texts[number % len(texts)]]).rewards[0]
        killer.count()
        return float(reward)

    with (
        RewardClient([server.grpc_url for server in servers]) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        found = list(pool.map(call, range(N_CALLS)))
        assert client.counts.candidates == N_CALLS
    assert killer.done.is_set()
    expected = np.resize(wanted, N_CALLS)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_every_call_of_tasks_is_answered(
    servers: list[TritonServer], texts: list[str], wanted: np.ndarray
) -> None:
    killer = Killer(servers[1])

    async def calls() -> list[float]:
        places = asyncio.Semaphore(8)

        async def call(number: int) -> float:
            async with places:
                scores = await client.score([texts[number % len(texts)]])
                killer.count()
                return float(scores.rewards[0])

        async with AsyncRewardClient([server.grpc_url for server in servers]) as client:
            return await asyncio.gather(*(call(number) for number in range(N_CALLS)))

    found = asyncio.run(calls())
    assert killer.done.is_set()
    np.testing.assert_allclose(found, np.resize(wanted, N_CALLS), rtol=0, atol=1e-5)


def test_a_name_with_several_addresses(
    servers: list[TritonServer], texts: list[str], wanted: np.ndarray
) -> None:
    addresses = ",".join(server.grpc_url for server in servers)
    with RewardClient(f"ipv4:{addresses}") as client:  # what dns:///name:port resolves to
        first = client.score(texts[:8]).rewards
        killed = servers[0]
        os.killpg(killed.pid, signal.SIGKILL)
        found = [client.score(texts[:8]).rewards for _ in range(20)]
    np.testing.assert_allclose([first, *found], [wanted[:8]] * 21, rtol=0, atol=1e-5)
