"""Servers that come back, as another model or another version; both clients."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from network import free_port
from waiting import eventually

from reward_client import (
    AsyncRewardClient,
    Connection,
    ContractError,
    DeadlineError,
    InternalError,
    OverloadedError,
    Retry,
    RewardClient,
    UnavailableError,
    attempts,
)
from reward_client.endpoints import IDLE_S
from reward_client.rl import verl
from reward_client.rl.trl import AsyncTrlReward, TrlReward
from reward_client.testing import FakeServer

Connect = Callable[..., RewardClient]
CHAT_ATTEMPTS = Retry().attempts


def versioned(version: int) -> FakeServer:
    server = FakeServer(lambda ids: np.full(len(ids), version), max_batch_rows=2)
    server.version = version
    return server


@pytest.mark.parametrize("kind", [TrlReward, AsyncTrlReward, "verl"])
def test_training_waits_for_a_server_that_restarts(kind: type | str) -> None:
    url = f"127.0.0.1:{free_port()}"

    def call() -> list[float]:
        if kind == "verl":
            extra = {"context": "Hi"}
            return [asyncio.run(verl.compute_score("d", " you", None, extra, url=url))]
        reward = kind(url)
        if kind is TrlReward:
            return reward(prompts=["Hi"], completions=[" you"])

        async def awaited() -> list[float]:
            return await reward(prompts=["Hi"], completions=[" you"])

        return asyncio.run(awaited())

    with closing(RewardClient(url)) as chat, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call)
        for _ in range(3):  # each as long as a chat waits
            with pytest.raises(UnavailableError):
                chat.score(["Hi"])
        assert not waiting.done()
        with FakeServer(lambda ids: ids[:, 0], port=int(url.rpartition(":")[2])):
            assert waiting.result() == [17250]


def test_patience_has_the_calls_deadline_for_its_end(connect: Connect) -> None:
    patient = Connection(retry=Retry(attempts=None, longest_pause_s=0.02))
    client = connect(f"127.0.0.1:{free_port()}", connection=patient)
    with pytest.raises((UnavailableError, DeadlineError)) as caught:  # the last may be cut short
        client.score(["Hi"], timeout_s=2)
    assert caught.value.attempts > 2 * CHAT_ATTEMPTS


def test_an_attempt_for_which_no_time_was_left_does_not_hide_the_one_before(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(attempts, "time", SimpleNamespace(monotonic=lambda: now))  # stopped clock
    client = connect(f"127.0.0.1:{free_port()}", connection=Connection(retry=Retry(attempts=None)))
    with pytest.raises((UnavailableError, DeadlineError)) as caught:
        client.score(["Hi"], timeout_s=0.5)
    assert caught.value.code is not None, "the error of the last attempt that was made"


def test_the_patient_wait_for_a_full_queue_as_well(fake: FakeServer, connect: Connect) -> None:
    client = connect(fake.url, connection=Connection(retry=Retry(attempts=None)))
    client.connect()
    fake.fail_with = (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.score, ["Hi"])
        assert eventually(lambda: client.counts.retries >= 2)
        fake.fail_with = None
        assert len(waiting.result().rewards) == 1
    fake.fail_with = (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
    with pytest.raises(OverloadedError):
        connect(fake.url, connection=Connection(retry=Retry(1))).score(["Hi"])


def test_a_version_with_another_tokenizer_is_noticed_with_its_first_answer(
    fake: FakeServer, client: RewardClient
) -> None:
    client.score(["Hi"])
    fake.version = 2
    fake.config.parameters["tokenizer_sha256"].string_value = "another"
    for _ in range(2):
        with pytest.raises(ContractError, match="tokenizer_sha256"):
            client.score(["Hi"])
    fake.version = 1
    with pytest.raises(ContractError):
        client.score(["Hi"])


def test_the_same_version_with_another_contract_is_noticed_under_steady_traffic(
    fake: FakeServer, client: RewardClient, clock: Any
) -> None:
    client.score(["Hi"])
    fake.config.parameters["tokenizer_sha256"].string_value = "another"
    for _ in range(7):
        clock.now += 0.125
        client.score(["Hi"])
    clock.now += 0.125  # a second after it was compared
    with pytest.raises(ContractError, match="tokenizer_sha256"):
        client.score(["Hi"])


def test_of_many_calls_at_once_one_compares(fake: FakeServer, clock: Any) -> None:
    async def run() -> int:
        async with AsyncRewardClient(fake.url) as client:
            await client.score(["Hi"])
            for _ in range(3):
                clock.now += 0.5
                await client.score(["Hi"])
            fake.headers.clear()
            clock.now += 0.5
            await asyncio.gather(*(client.score(["Hi"]) for _ in range(20)))
            return len(fake.headers)

    assert asyncio.run(run()) == 20 + 1


def test_a_comparison_that_failed_is_made_by_the_next_call(
    fake: FakeServer, client: RewardClient, clock: Any
) -> None:
    client.score(["Hi"])
    clock.now += 0.5
    client.score(["Hi"])
    clock.now += 0.5
    fake.fail_with = (grpc.StatusCode.INTERNAL, "no")
    with pytest.raises(InternalError):
        client.score(["Hi"])
    fake.fail_with = None
    fake.config.parameters["tokenizer_sha256"].string_value = "another"
    with pytest.raises(ContractError, match="tokenizer_sha256"):
        client.score(["Hi"])


@pytest.mark.usefixtures("clock")
def test_a_version_that_is_known_is_not_asked_about_again(
    fake: FakeServer, client: RewardClient
) -> None:
    for fake.version in (1, 2, 1, 2):
        client.score(["Hi"])
    assert len(fake.headers) == 3 + 4 + 1, "to connect, to score, and for version 2"


def test_a_server_that_was_exchanged_while_nobody_asked_is_noticed(connect: Connect) -> None:
    with FakeServer(lambda ids: ids[:, 0]) as first:
        client = connect(first.url)
        client.score(["Hi"])
        port = int(first.url.rpartition(":")[2])
    with FakeServer(lambda ids: ids[:, 0], port=port) as second:
        second.config.parameters["tokenizer_sha256"].string_value = "another"
        with grpc.insecure_channel(second.url) as channel:
            grpc.channel_ready_future(channel).result()
        heard = time.monotonic()
        assert eventually(lambda: time.monotonic() - heard > IDLE_S)  # it has reconnected by itself
        with pytest.raises(ContractError, match="tokenizer_sha256"):
            client.score(["Hi"])


def test_a_smaller_batch_splits_the_call_anew(fake: FakeServer, client: RewardClient) -> None:
    assert len(client.score(["Hi"] * 4).rewards) == 4
    fake.config.max_batch_size = 2
    fake.requests.clear()
    assert len(client.score(["Hi"] * 9).rewards) == 9
    assert len(client.rank("Hi", ["a", "b", "c"])) == 3
    assert client.connect().max_batch_rows == 2


def test_another_head_is_told_apart(fake: FakeServer, client: RewardClient) -> None:
    client.score(["Hi"])
    fake.version = 2
    fake.config.output[0].dims[:] = [2]
    with pytest.raises(ContractError, match=r"reward FP32 \[2\]"):
        client.score(["Hi"])


@pytest.mark.parametrize("as_list", [True, False], ids=["urls", "one name"])
def test_large_calls_during_a_rolling_update_have_one_version(
    connect: Connect, *, as_list: bool
) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(versioned(version)) for version in (1, 2)]
        urls = [server.url for server in servers]
        client = connect(urls if as_list else "ipv4:" + ",".join(urls))
        for _ in range(4):
            client.score(["Hi"])
        for _ in range(20):
            scores = client.score(["Hi"] * 24)
            assert set(scores.rewards.tolist()) == {scores.model_version}


def test_a_call_goes_on_with_the_version_that_stays(connect: Connect) -> None:
    """The other version is gone when its parts are asked for again."""

    def rewards(ids: np.ndarray) -> np.ndarray:
        if len(server.requests) >= 6:
            server.version = 2
        return ids[:, 0]

    with FakeServer(rewards, max_batch_rows=2) as server:
        assert connect(server.url).score(["Hi"] * 24).model_version == 2
        assert len(server.requests) > 12, "what the other version had answered is asked for again"
