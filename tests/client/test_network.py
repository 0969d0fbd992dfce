"""Silence: half-open connections, stopped servers, addresses of which one does not answer."""

import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import grpc
import numpy as np
import pytest
from network import Proxy, processes, two_under_one_url

from reward_client import Connection, DeadlineError, Retry, RewardClient, UnavailableError
from reward_client.testing import FakeServer

Connect = Callable[..., RewardClient]
TRITONS_SHORTEST_PING_INTERVAL_MS = 300_000  # --grpc-http2-min-recv-ping-interval-without-data
MANY_S = 60  # far more than an answer takes, even on a busy machine


def test_the_call_after_the_first_silent_one_is_answered(
    fake: FakeServer, connect: Connect
) -> None:
    with Proxy(fake.url) as proxy:
        client = connect(proxy.url)
        client.score(["Hi"])
        proxy.swallow()
        with pytest.raises(DeadlineError):
            client.score(["Hi"], timeout_s=1)
        assert len(client.score(["Hi"], timeout_s=10).rewards) == 1
        assert proxy.n_accepted == 2


def test_short_calls_add_up_to_a_silence(fake: FakeServer, connect: Connect) -> None:
    with Proxy(fake.url) as proxy:
        client = connect(proxy.url)
        client.score(["Hi"])
        proxy.swallow()
        for _ in range(10):
            with suppress(DeadlineError):
                client.score(["Hi"], timeout_s=0.1)
        assert proxy.n_accepted >= 2
        assert len(client.score(["Hi"], timeout_s=10).rewards) == 1


def test_one_silent_channel_of_several_is_replaced_alone(
    fake: FakeServer, connect: Connect
) -> None:
    with Proxy(fake.url) as proxy:
        client = connect(proxy.url, connection=Connection(channels=2))
        client.score(["Hi"])  # three requests to connect and one to score: both are open
        assert proxy.n_accepted == 2
        proxy.swallow()
        for _ in range(2):
            with pytest.raises(DeadlineError):
                client.score(["Hi"], timeout_s=1)
        for _ in range(4):
            assert len(client.score(["Hi"], timeout_s=10).rewards) == 1
        assert proxy.n_accepted == 4


def test_a_call_on_a_replaced_channel_is_answered(fake: FakeServer) -> None:
    """Calls that wait for a slow server get its answer though another call gave up."""
    with RewardClient(fake.url, timeout_s=MANY_S) as client, ThreadPoolExecutor(1) as pool:
        fake.delay_s = 1.5
        patient = pool.submit(client.score, ["Hi"])
        while not fake.requests:
            pass
        with pytest.raises(DeadlineError):
            client.score(["Hi"], timeout_s=0.5)
        assert len(patient.result().rewards) == 1


def test_a_host_that_acknowledges_nothing_is_noticed_by_the_kernel(
    fake: FakeServer, connect: Connect
) -> None:
    with Proxy(fake.url) as proxy:
        client = connect(proxy.url)
        client.score(["Hi"])
        (timeout_ms,) = user_timeouts_ms(proxy.url)
        assert 0 < timeout_ms <= 20_000


def user_timeouts_ms(url: str) -> list[int]:
    """TCP_USER_TIMEOUT of this process's connections to an address."""
    port, found = int(url.rpartition(":")[2]), []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if "socket" in str(link.readlink()):
                one = socket.socket(fileno=os.dup(int(link.name)))
                with one:
                    if one.getpeername()[1:2] == (port,):
                        found.append(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
    return found


def test_keepalive_is_within_tritons_limits_and_can_be_changed() -> None:
    options = dict(Connection().channel_options())
    assert options["grpc.keepalive_time_ms"] > TRITONS_SHORTEST_PING_INTERVAL_MS
    assert options["grpc.keepalive_permit_without_calls"] == 0
    own = {"grpc.keepalive_time_ms": 600_000, "grpc.primary_user_agent": "mine"}
    changed = dict(Connection(grpc_options=own).channel_options())
    assert changed == {**options, **own}
    with pytest.raises(ValueError, match="keepalive_time_ms"):
        Connection(grpc_options={"keepalive_time_ms": 1})


def test_grpc_options_reach_the_server(fake: FakeServer, connect: Connect) -> None:
    own = {"grpc.primary_user_agent": "chat/7"}
    connect(fake.url, connection=Connection(grpc_options=own)).score(["Hi"])
    assert fake.headers[0]["user-agent"].startswith("chat/7")


@pytest.mark.parametrize("kind", ["list", "name"])
def test_of_several_addresses_a_silent_one_costs_at_most_one_call(
    connect: Connect, kind: str
) -> None:
    with two_under_one_url(kind) as (servers, url):
        client = connect(url)
        for _ in range(8):
            client.score(["Hi"])
        servers[0].pause()
        failed = 0
        for _ in range(10):
            try:
                client.score(["Hi"], timeout_s=4)
            except DeadlineError:
                failed += 1
        assert failed <= 1


@pytest.mark.parametrize("kind", ["list", "name"])
def test_of_several_addresses_a_silent_one_costs_callers_at_the_same_time_one_call_each(
    kind: str,
) -> None:
    n_callers = 4
    with (
        two_under_one_url(kind) as (servers, url),
        RewardClient(url) as client,
        ThreadPoolExecutor(n_callers) as pool,
    ):
        for _ in range(8):
            client.score(["Hi"])
        servers[0].pause()

        def call(_: int) -> bool:
            try:
                client.score(["Hi"], timeout_s=4)
            except DeadlineError:
                return False
            return True

        answered = list(pool.map(call, range(40)))
    assert sum(answered) >= 40 - n_callers


def test_a_silent_server_costs_no_call_where_another_answers(connect: Connect) -> None:
    with processes(3) as servers:
        client = connect([server.url for server in servers])
        for _ in range(3):
            client.score(["Hi"])
        servers[1].pause()
        for _ in range(6):
            assert len(client.score(["Hi"], timeout_s=6).rewards) == 1
        assert client.counts.retries == 1, "it is left out after the first"


def test_a_silent_server_that_speaks_again_is_asked_again(connect: Connect) -> None:
    with processes(1) as servers:
        client = connect(servers[0].url)
        client.score(["Hi"])
        servers[0].pause()
        for _ in range(2):
            with pytest.raises(DeadlineError):
                client.score(["Hi"], timeout_s=0.5)
        servers[0].resume()
        assert len(client.score(["Hi"], timeout_s=MANY_S).rewards) == 1


def test_a_large_call_goes_around_a_silent_server(connect: Connect) -> None:
    with processes(2) as servers:
        client = connect([server.url for server in servers])
        for _ in range(2):
            client.score(["Hi"])
        servers[0].pause()
        assert len(client.score(["Hi"] * 1000, timeout_s=20).rewards) == 1000


def test_one_impatient_call_takes_no_server_away(connect: Connect) -> None:
    with (
        FakeServer(lambda ids: np.full(len(ids), 0)) as one,
        FakeServer(lambda ids: np.full(len(ids), 1)) as other,
    ):
        client = connect([one.url, other.url])
        for _ in range(2):
            client.score(["Hi"])
        one.delay_s = other.delay_s = 0.1
        with pytest.raises(DeadlineError):
            client.score(["Hi"], timeout_s=0.003)
        found = [float(client.score(["Hi"]).rewards[0]) for _ in range(4)]
        assert sorted(found) == [0, 0, 1, 1]


def test_a_slow_server_is_asked_once_while_it_answers_others(fake: FakeServer) -> None:
    """A second request is for a server that is silent, not for one that is slow."""
    with (
        FakeServer(lambda ids: ids[:, 0]) as other,
        RewardClient(
            [fake.url, other.url], connection=Connection(retry=Retry(hedge_after_s=0.2))
        ) as client,
    ):
        client.score(["Hi"])
        client.score(["Hi"])
        held, let_go = threading.Event(), threading.Event()

        def slow(ids: np.ndarray) -> np.ndarray:
            if len(ids) == 2:
                held.set()
                let_go.wait()
            return ids[:, 0]

        fake._rewards = other._rewards = slow
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(client.score, ["Hi", "Hello"])
            assert held.wait(MANY_S)
            for _ in range(100):
                client.score(["Hi"])
            retries = client.counts.retries
            let_go.set()
            assert len(call.result().rewards) == 2
    assert retries <= 1


@pytest.mark.parametrize("n_rows", [1, 40])
def test_a_gateway_that_sheds_load_gets_few_more_requests(
    fake: FakeServer, connect: Connect, n_rows: int
) -> None:
    client = connect(fake.url)
    client.connect()
    fake.headers.clear()
    fake.fail_with = (grpc.StatusCode.UNAVAILABLE, "upstream overflow")
    n_calls = 40
    for _ in range(n_calls):
        with pytest.raises(UnavailableError):
            client.score(["Hi"] * n_rows)
    assert len(fake.headers) <= 1.5 * n_calls + 10


def test_the_budget_grows_with_answers(fake: FakeServer, connect: Connect) -> None:
    client = connect(fake.url)
    for _ in range(50):
        client.score(["Hi"])
    fake.headers.clear()
    fake.fail_with = (grpc.StatusCode.UNAVAILABLE, "upstream overflow")
    for _ in range(30):
        with pytest.raises(UnavailableError):
            client.score(["Hi"])
    assert 30 + 10 < len(fake.headers) <= 30 + 10 + 12
