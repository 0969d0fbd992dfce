"""What a call does when servers are down or its caller leaves, and what it returns."""

import asyncio
import threading
from collections.abc import Callable, Iterator

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2
from waiting import HUNG_S, eventually

from reward_client import (
    AsyncRewardClient,
    Connection,
    InternalError,
    ModelNotFoundError,
    Retry,
    RewardClient,
    UnavailableError,
    wire,
)
from reward_client.testing import FakeServer

Connect = Callable[..., RewardClient]
AWAY = (grpc.StatusCode.UNAVAILABLE, "gone")


@pytest.mark.parametrize("n_servers", [1, 2, 3])
def test_other_servers_do_not_count_as_attempts_until_each_has_been_tried(
    connect: Connect, n_servers: int
) -> None:
    servers = [FakeServer(lambda ids: ids[:, 0]) for _ in range(n_servers)]
    retry = Retry(attempts=2, first_pause_s=0.0)
    for server in servers:
        server.__enter__()
    try:
        client = connect([one.url for one in servers], connection=Connection(retry=retry))
        for _ in servers:
            client.score(["Hi"])
        for server in servers:
            server.fail_with = AWAY
            server.headers.clear()
        with pytest.raises(UnavailableError) as caught:
            client.score(["Hi"])
        assert caught.value.attempts == 2 + n_servers - 1
        assert sum(len(server.headers) for server in servers) == 2 + n_servers - 1
        assert all(server.headers for server in servers)
        assert client.counts.retries == 2 + n_servers - 2
    finally:
        for server in servers:
            server.__exit__(None, None, None)


@pytest.mark.parametrize(
    "words",
    ["Stub process 'gpt2_reward_0_1' is not healthy.", "Failed to obtain the health mutex."],
)
def test_a_dead_model_process_is_asked_again_but_an_error_is_not(
    connect: Connect, words: str
) -> None:
    thrice = Connection(retry=Retry(attempts=3, first_pause_s=0.0))
    with FakeServer(lambda ids: ids[:, 0]) as server:
        client = connect(server.url, connection=thrice)
        client.score(["Hi"])
        server.fail_with = (grpc.StatusCode.INTERNAL, words)
        with pytest.raises(UnavailableError, match="the model's process has died") as caught:
            client.score(["Hi"])
        assert (caught.value.attempts, caught.value.code) == (3, "INTERNAL")
        server.fail_with = (grpc.StatusCode.INTERNAL, "onnx runtime error")
        with pytest.raises(InternalError) as failed:
            client.score(["Hi"])
        assert failed.value.attempts == 1


def test_a_model_without_a_version_is_not_served(connect: Connect) -> None:
    class Empty(FakeServer):
        def ModelMetadata(  # noqa: N802  # the protocol's name
            self, request: service_pb2.ModelMetadataRequest, context: grpc.ServicerContext
        ) -> service_pb2.ModelMetadataResponse:
            response = super().ModelMetadata(request, context)
            del response.versions[:]
            return response

    with Empty(lambda ids: ids[:, 0]) as fake:
        client = connect(fake.url)
        with pytest.raises(ModelNotFoundError, match="has no version of gpt2_reward") as caught:
            client.score(["Hi"])
        assert caught.value.url == fake.url
        assert fake.requests == []


def test_the_servers_time_is_whole_microseconds_and_never_none(connect: Connect) -> None:
    """Triton takes 0 as no limit at all."""
    with FakeServer(lambda ids: ids[:, 0]) as fake:
        request = service_pb2.ModelInferRequest()
        for seconds, microseconds in ((2.5, 2_500_000), (1e-7, 1), (0.0, 1)):
            wire.set_time_left(request, seconds)
            assert request.parameters["timeout"].int64_param == microseconds
        connect(fake.url, timeout_s=HUNG_S).score(["Hi"])
        assert 0 < fake.parameters[0]["timeout"] <= HUNG_S * 1e6


def test_rewards_are_the_callers_to_change() -> None:
    response = service_pb2.ModelInferResponse(model_version="1")
    response.outputs.add(name="reward", datatype="FP32", shape=[2, 1])
    response.raw_output_contents.append(np.float32([1, 3]).tobytes())
    rewards = wire.rewards_of(response, 2)
    rewards -= rewards.mean()  # one request; those of several are joined into a new array
    np.testing.assert_array_equal(rewards, np.float32([-1, 1]))
    np.testing.assert_array_equal(wire.rewards_of(response, 2), np.float32([1, 3]))


class Watched(FakeServer):
    """Takes one row per request; `ended` counts requests that are over, however they ended."""

    def __init__(self, rewards: Callable[[np.ndarray], np.ndarray]) -> None:
        super().__init__(rewards, max_batch_rows=1)
        self.ended = threading.Semaphore(0)

    def ModelInfer(  # noqa: N802
        self, request: service_pb2.ModelInferRequest, context: grpc.ServicerContext
    ) -> service_pb2.ModelInferResponse:
        context.add_callback(self.ended.release)
        return super().ModelInfer(request, context)

    async def until_ended(self, n_requests: int) -> None:
        for _ in range(n_requests):
            assert await asyncio.to_thread(self.ended.acquire, timeout=HUNG_S)


@pytest.fixture
def answers() -> Iterator[threading.Event]:
    """What held requests wait for; set at the latest when the test is over."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def held(answers: threading.Event) -> Iterator[Watched]:
    """Answers "Hi" with an error once two other requests wait, and those once `answers` is set."""

    def rewards(ids: np.ndarray) -> np.ndarray:
        if ids[0, 0] == 17250:  # "Hi"
            assert eventually(lambda: len(fake.requests) == 3)
            raise RuntimeError
        answers.wait()
        return ids[:, 0]

    with Watched(rewards) as fake:
        yield fake
        answers.set()


@pytest.mark.parametrize("n_rows", [1, 3])
def test_a_cancelled_call_cancels_all_its_requests(held: Watched, n_rows: int) -> None:
    async def give_up() -> None:
        async with AsyncRewardClient(held.url) as client:
            task = asyncio.ensure_future(client.score(["a"] * n_rows))
            assert await asyncio.to_thread(eventually, lambda: len(held.requests) == n_rows)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await held.until_ended(n_rows)  # unanswered, and before `close` ends them

    asyncio.run(give_up())


def test_a_request_that_fails_cancels_the_others_of_its_call(held: Watched) -> None:
    async def call() -> None:
        async with AsyncRewardClient(held.url) as client:
            with pytest.raises(InternalError):
                await client.score(["a", "Hi", "b"])
            await held.until_ended(3)

    asyncio.run(call())


def test_a_call_that_is_cancelled_while_its_client_is_closed_is_cancelled(held: Watched) -> None:
    async def call() -> None:
        client = AsyncRewardClient(held.url)
        task = asyncio.ensure_future(client.score(["a"]))
        assert await asyncio.to_thread(eventually, lambda: len(held.requests) == 1)
        task.cancel()
        await client.close()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(call())
