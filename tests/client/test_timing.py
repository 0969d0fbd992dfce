"""`on_timing`, with both clients."""

import asyncio
import logging
from collections.abc import Callable

import grpc
import pytest
from waiting import eventually

from reward_client import AsyncRewardClient, InternalError, RewardClient, Timing
from reward_client.testing import FakeServer

Connect = Callable[..., RewardClient]


def test_each_call_and_each_of_its_requests_is_told(fake: FakeServer, connect: Connect) -> None:
    told: list[Timing] = []
    client = connect(fake.url, on_timing=told.append)
    client.rank_many([("secret", ["words"] * 6)])
    *attempts, call = told
    names = ["ServerMetadata", "ModelMetadata", "ModelConfig", "ModelInfer", "ModelInfer"]
    assert [one.method for one in attempts] == names
    assert {(one.kind, one.url, one.error) for one in attempts} == {("attempt", fake.url, None)}
    assert (call.kind, call.method, call.url, call.error) == ("call", "rank_many", None, None)
    assert all(0 < one.seconds < call.seconds for one in attempts)
    assert "secret" not in repr(told)
    client.is_ready()
    assert (told[-1].kind, told[-1].method) == ("call", "is_ready")


def test_errors_are_told_by_the_name_of_their_class(fake: FakeServer, connect: Connect) -> None:
    told: list[Timing] = []
    client = connect(fake.url, on_timing=told.append)
    client.connect()
    fake.fail_with = (grpc.StatusCode.INTERNAL, "secret words")
    with pytest.raises(InternalError):
        client.rank("Hi", ["a"])
    assert [(one.kind, one.error) for one in told[-2:]] == [
        ("attempt", "InternalError"),
        ("call", "InternalError"),
    ]
    assert "secret" not in repr(told)


def test_a_broken_hook_is_logged_and_fails_no_call(
    fake: FakeServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Timing) -> None:
        raise RuntimeError("mine")

    client = connect(fake.url, on_timing=broken)
    with caplog.at_level(logging.ERROR, logger="reward_client"):
        assert client.score(["secret words"]).rewards.shape == (1,)
        fake.fail_with = (grpc.StatusCode.INTERNAL, "no")
        with pytest.raises(InternalError):
            client.score(["secret words"])
    assert caplog.text.count("on_timing failed") >= 5 + 2
    assert "secret" not in caplog.text


def test_what_is_cancelled_is_told_as_well(fake: FakeServer) -> None:
    told: list[Timing] = []

    async def run() -> None:
        async with AsyncRewardClient(fake.url, on_timing=told.append) as client:
            fake.delay_s = 0.5
            call = asyncio.ensure_future(client.score(["Hi"]))
            while not fake.requests:  # noqa: ASYNC110  # it is another thread's
                await asyncio.sleep(0.01)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    asyncio.run(run())
    assert [(one.kind, one.method, one.error) for one in told[-2:]] == [
        ("attempt", "ModelInfer", "cancelled"),
        ("call", "score", "cancelled"),
    ]
    assert eventually(lambda: fake.n_cancelled == 1)


async def awaited(_: Timing) -> None: ...


@pytest.mark.parametrize("hook", ["print", awaited])
def test_a_hook_that_cannot_be_called_is_a_programming_mistake(hook: object) -> None:
    with pytest.raises(ValueError, match="on_timing must be a plain function"):
        RewardClient(on_timing=hook)
