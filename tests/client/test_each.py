"""`rank_each`: many groups, each ranking as soon as it is ready."""

import asyncio
import itertools
import threading
from collections.abc import Iterator
from contextlib import aclosing

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2
from waiting import eventually

from reward_client import AsyncRewardClient, InternalError, InvalidInputError
from reward_client.testing import FakeServer

HI = 17250  # the token


class Gate:
    """Rewards that are the first token; texts that begin with "Hi" wait until it opens."""

    def __init__(self) -> None:
        self.is_open = threading.Event()

    def rewards(self, ids: np.ndarray) -> np.ndarray:
        if ids[0, 0] == HI:
            self.is_open.wait()
        return ids[:, 0]


class Watched(FakeServer):
    """Counts the requests that have ended, by an answer or because their caller left."""

    n_ended = 0

    def ModelInfer(  # noqa: N802  # the protocol's name
        self, request: service_pb2.ModelInferRequest, context: grpc.ServicerContext
    ) -> service_pb2.ModelInferResponse:
        context.add_callback(self._end)
        return super().ModelInfer(request, context)

    def _end(self) -> None:
        self.n_ended += 1


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.is_open.set()


@pytest.fixture
def fake(gate: Gate) -> Iterator[Watched]:
    with Watched(gate.rewards) as server:
        yield server
        gate.is_open.set()


def test_rankings_come_as_they_finish(fake: FakeServer, gate: Gate) -> None:
    groups = [("Hi", [" a", " b"]), *((str(number), ["", " c"]) for number in range(5))]

    async def run() -> None:
        async with AsyncRewardClient(fake.url) as client:
            came = []
            async for index, ranking in client.rank_each(iter(groups), in_flight=2):
                came.append(index)
                wanted = await client.rank_many([groups[index]]) if index else None
                assert wanted is None or wanted == [ranking]
                if len(came) == 5:
                    gate.is_open.set()
            assert came == [1, 2, 3, 4, 5, 0]

    asyncio.run(run())


def test_no_more_groups_are_taken_than_are_in_flight(fake: FakeServer) -> None:
    taken = itertools.count()
    endless = ((f"{next(taken)}", ["a", "b"]) for _ in itertools.count())

    async def run() -> None:
        async with AsyncRewardClient(fake.url) as client:
            rankings = client.rank_each(endless, in_flight=3)
            async with aclosing(rankings):
                for n_came in range(1, 31):
                    await anext(rankings)
                    await asyncio.sleep(0)
                    assert len(fake.requests) < n_came + 3
            assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())
    assert next(taken) <= 30 + 2


@pytest.mark.parametrize("how", ["closed", "cancelled"])
def test_the_end_of_the_generator_cancels_its_requests(fake: Watched, how: str) -> None:
    groups = [("0", ["a"]), *(("Hi", [end]) for end in (" a", " b", " c"))]
    n_sent = 3 if how == "closed" else 4  # asking for the next ranking fills a free place

    async def run() -> None:
        async with AsyncRewardClient(fake.url) as client:
            rankings = client.rank_each(groups, in_flight=3)
            assert (await anext(rankings))[0] == 0
            waiting = None if how == "closed" else asyncio.ensure_future(anext(rankings))
            while len(fake.requests) < n_sent:  # noqa: ASYNC110  # it is another thread's
                await asyncio.sleep(0.01)
            if waiting is None:
                await rankings.aclose()
            else:
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            assert len(asyncio.all_tasks()) == 1
            with pytest.raises(StopAsyncIteration):
                await anext(rankings)

    asyncio.run(run())
    assert eventually(lambda: fake.n_ended == n_sent), "those that wait at the gate were cancelled"


def test_an_error_of_one_group_ends_it_unless_told_otherwise(fake: FakeServer) -> None:
    groups = [("a", ["b"]), ("c", ["d", None]), ("e", ["f"])]

    async def run() -> None:
        async with AsyncRewardClient(fake.url) as client:
            with pytest.raises(InvalidInputError, match="group 1") as caught:
                _ = [one async for one in client.rank_each(groups, in_flight=1)]
            assert (caught.value.group, caught.value.row) == (1, 1)
            assert len(fake.requests) == 1
            rankings = dict([one async for one in client.rank_each(groups, on_error="nan")])
            assert [rankings[index].error is None for index in range(3)] == [True, False, True]
            assert rankings[1].error.group == 1
            assert np.isnan(rankings[1].rewards).tolist() == [True, True]
            fake.fail_with = (grpc.StatusCode.INTERNAL, "no")
            with pytest.raises(InternalError):
                _ = [one async for one in client.rank_each(groups, on_error="nan")]

    asyncio.run(run())


def test_errors_of_the_iterable_and_senseless_options_are_raised(fake: FakeServer) -> None:
    def broken() -> Iterator[tuple[str, list[str]]]:
        yield "a", ["b"]
        raise KeyError("mine")

    async def run() -> None:
        async with AsyncRewardClient(fake.url) as client:
            with pytest.raises(KeyError, match="mine"):
                _ = [one async for one in client.rank_each(broken())]
            assert [one async for one in client.rank_each([])] == []
            with pytest.raises(ValueError, match="in_flight must be at least 1, not 0"):
                client.rank_each([], in_flight=0)

    asyncio.run(run())
