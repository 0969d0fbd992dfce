"""Deadlines, overload, cancellation and priorities in the real server's queue.

The model's process is stopped for a moment, so that what is in the queue stays there.
"""

import asyncio
import contextlib
import re
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from running import eventually, metric, pending, stopped_model

from reward_client import AsyncRewardClient, DeadlineError, OverloadedError, RewardClient
from reward_contract import MODEL_NAME
from reward_serve.server import ServerOptions, TritonServer

QUEUE_SIZE = 4


@pytest.fixture(scope="module")
def narrow(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """One row an execution, and a short queue."""
    copy = tmp_path_factory.mktemp("narrow") / "repository"
    shutil.copytree(repository, copy)
    config = copy / MODEL_NAME / "config.pbtxt"
    text, n_sizes = re.subn(
        r"max_queue_size: \d+", f"max_queue_size: {QUEUE_SIZE}", config.read_text()
    )
    assert n_sizes == 2
    text = text.replace("count: 2", "count: 1")
    config.write_text(text.replace("max_batch_size: 128", "max_batch_size: 1"))
    with TritonServer(ServerOptions(copy, grpc_port=0, http_port=0, metrics_port=0)) as server:
        yield server


@pytest.fixture
def client(narrow: TritonServer) -> Iterator[RewardClient]:
    with RewardClient(narrow.grpc_url) as client:
        client.score(["Hi"])
        yield client


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


def occupy(client: RewardClient, pool: ThreadPoolExecutor, server: TritonServer) -> Future:
    """A request that is being executed, so that what follows waits behind it."""
    before = metric(server, "nv_inference_pending_request_count")
    running = pool.submit(client.score, ["in execution"])
    time.sleep(0.1)
    assert pending(server) == before, "it has left the queue"
    return running


def test_what_nobody_waits_for_is_dropped_from_the_queue(
    narrow: TritonServer, client: RewardClient, pool: ThreadPoolExecutor
) -> None:
    executed = metric(narrow, "nv_inference_count")
    with stopped_model(narrow):
        running = occupy(client, pool, narrow)
        late = pool.submit(client.score, ["too late"], timeout_s=0.3)
        with pytest.raises(DeadlineError):
            late.result()
    assert len(running.result().rewards) == 1
    assert len(client.score(["after it"]).rewards) == 1
    assert metric(narrow, "nv_inference_count") == executed + 2, "the late one never ran"


def test_a_full_queue_refuses_at_once(
    narrow: TritonServer, client: RewardClient, pool: ThreadPoolExecutor
) -> None:
    with stopped_model(narrow):
        running = occupy(client, pool, narrow)
        waiting = [pool.submit(client.score, ["queued"]) for _ in range(QUEUE_SIZE)]
        assert eventually(lambda: pending(narrow) == QUEUE_SIZE)
        with pytest.raises(OverloadedError, match="fewer requests"):
            client.score(["one too many"])
        assert not any(future.done() for future in (running, *waiting))
    assert all(len(future.result().rewards) == 1 for future in (running, *waiting))


def test_a_cancelled_task_leaves_the_queue(
    narrow: TritonServer, client: RewardClient, pool: ThreadPoolExecutor
) -> None:
    async def give_up() -> None:
        async with AsyncRewardClient(narrow.grpc_url) as other:
            task = asyncio.ensure_future(other.score(["never mind"]))
            assert await asyncio.to_thread(eventually, lambda: pending(narrow) == 1)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    executed = metric(narrow, "nv_inference_count")
    with stopped_model(narrow):
        running = occupy(client, pool, narrow)
        asyncio.run(give_up())
        time.sleep(0.2)  # for the server to hear of it
    assert len(running.result().rewards) == 1
    assert len(client.score(["after it"]).rewards) == 1
    assert metric(narrow, "nv_inference_count") == executed + 2, "the cancelled one never ran"


def test_interactive_calls_go_ahead_of_bulk_ones(
    narrow: TritonServer, client: RewardClient, pool: ThreadPoolExecutor
) -> None:
    order: list[str] = []

    def score(priority: str) -> None:
        client.score(["Hi"], priority=priority)
        order.append(priority)

    with stopped_model(narrow):
        running = occupy(client, pool, narrow)
        bulk = [pool.submit(score, "bulk") for _ in range(3)]
        assert eventually(lambda: pending(narrow) == 3)
        interactive = [pool.submit(score, "interactive") for _ in range(2)]
        assert eventually(lambda: pending(narrow) == 5)
    wait([running, *bulk, *interactive])
    assert order[:2] == ["interactive", "interactive"]
    assert len(order) == 5
