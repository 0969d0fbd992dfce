"""Deadlines, overload, cancellation and priorities in the real server's queue.

The model waits at a gate, so that requests in the queue stay there.
"""

import asyncio
import contextlib
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from running import Gate, gated, pending
from waiting import HUNG_S, eventually

from reward_client import AsyncRewardClient, DeadlineError, OverloadedError, RewardClient
from reward_contract import MODEL_NAME
from reward_serve.server import ServerOptions, TritonServer

QUEUE_SIZE = 4


@pytest.fixture(scope="module")
def gate(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Gate:
    """The gate of a model with one row per execution, a short queue, and a long queue timeout."""
    copy = tmp_path_factory.mktemp("narrow") / "repository"
    gate = gated(repository, copy)
    config = copy / MODEL_NAME / "config.pbtxt"
    text = config.read_text().replace("max_batch_size: 128", "max_batch_size: 1")
    text, n_sizes = re.subn(r"max_queue_size: \d+", f"max_queue_size: {QUEUE_SIZE}", text)
    text, n_times = re.subn(r"(default_timeout_microseconds): \d+", rf"\1: {300 * 10**6}", text)
    assert (n_sizes, n_times) == (2, 2)
    config.write_text(text)
    return gate


@pytest.fixture(scope="module")
def narrow(gate: Gate) -> Iterator[TritonServer]:
    options = ServerOptions(
        gate.repository,
        grpc_port=0,
        http_port=0,
        metrics_port=0,
        triton_options=("--log-verbose=1",),  # it logs cancelled requests
    )
    with TritonServer(options) as server:
        yield server


@pytest.fixture
def client(narrow: TritonServer) -> Iterator[RewardClient]:
    with RewardClient(narrow.grpc_url, timeout_s=HUNG_S) as client:
        client.score(["Hi"])
        yield client


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


def occupy(client: RewardClient, pool: ThreadPoolExecutor, gate: Gate) -> Future:
    """Start a request that occupies the model, so that later ones wait in the queue."""
    running = pool.submit(client.score, ["in execution"])
    assert eventually(lambda: gate.n_executions() == 1)
    return running


def test_what_nobody_waits_for_is_dropped_from_the_queue(
    narrow: TritonServer, gate: Gate, client: RewardClient, pool: ThreadPoolExecutor
) -> None:
    with gate.closed():
        running = occupy(client, pool, gate)
        late = pool.submit(client.score, ["too late"], timeout_s=2)
        assert eventually(lambda: pending(narrow) == 1)
        with pytest.raises(DeadlineError):
            late.result()
        assert eventually(lambda: pending(narrow) == 0), "it has left the queue"
    assert len(running.result().rewards) == 1
    assert len(client.score(["after it"]).rewards) == 1
    texts = ("in execution", "too late", "after it")
    assert gate.order(*texts) == ["in execution", "after it"]


def test_a_full_queue_refuses_at_once(
    narrow: TritonServer, gate: Gate, client: RewardClient, pool: ThreadPoolExecutor
) -> None:
    with gate.closed():
        running = occupy(client, pool, gate)
        waiting = [pool.submit(client.score, ["queued"]) for _ in range(QUEUE_SIZE)]
        assert eventually(lambda: pending(narrow) == QUEUE_SIZE)
        with pytest.raises(OverloadedError, match="fewer requests"):
            client.score(["one too many"])
        assert not any(future.done() for future in (running, *waiting))
    assert all(len(future.result().rewards) == 1 for future in (running, *waiting))


def test_a_cancelled_task_leaves_the_queue(
    narrow: TritonServer, gate: Gate, client: RewardClient, pool: ThreadPoolExecutor
) -> None:
    def n_cancelled() -> int:
        return narrow.log.read_text().count("Issuing cancellation")

    async def give_up() -> None:
        before = n_cancelled()
        async with AsyncRewardClient(narrow.grpc_url) as other:
            task = asyncio.ensure_future(other.score(["never mind"]))
            assert await asyncio.to_thread(eventually, lambda: pending(narrow) == 1)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(eventually, lambda: n_cancelled() == before + 1)

    with gate.closed():
        running = occupy(client, pool, gate)
        asyncio.run(give_up())
    assert len(running.result().rewards) == 1
    assert len(client.score(["after it"]).rewards) == 1
    texts = ("in execution", "never mind", "after it")
    assert gate.order(*texts) == ["in execution", "after it"]


def test_interactive_calls_go_ahead_of_bulk_ones(
    narrow: TritonServer, gate: Gate, client: RewardClient, pool: ThreadPoolExecutor
) -> None:
    def score(priority: str) -> None:
        client.score([priority], priority=priority)

    with gate.closed():
        running = occupy(client, pool, gate)
        bulk = [pool.submit(score, "bulk") for _ in range(3)]
        assert eventually(lambda: pending(narrow) == 3)
        interactive = [pool.submit(score, "interactive") for _ in range(2)]
        assert eventually(lambda: pending(narrow) == 5)
    wait([running, *bulk, *interactive])
    assert gate.order("bulk", "interactive") == ["interactive"] * 2 + ["bulk"] * 3


def test_bulk_work_at_the_interactive_priority_takes_its_turn(
    narrow: TritonServer, gate: Gate, client: RewardClient, pool: ThreadPoolExecutor
) -> None:
    """For bulk jobs that have to advance while interactive calls fill the server."""
    with gate.closed():
        running = occupy(client, pool, gate)
        calls = []
        for n_waiting, text in enumerate(("chat 1", "work", "chat 2"), start=1):
            calls.append(pool.submit(client.score, [text], priority="interactive"))
            assert eventually(lambda n_waiting=n_waiting: pending(narrow) == n_waiting)
    wait([running, *calls])
    assert gate.order("chat 1", "work", "chat 2") == ["chat 1", "work", "chat 2"]
