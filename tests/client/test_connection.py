"""Several servers, restarts, certificates, headers, priorities and deadlines; both clients."""

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import numpy as np
import pytest
import trustme
from network import Proxy
from waiting import HUNG_S, eventually

from reward_client import (
    TLS,
    AsyncRewardClient,
    Connection,
    ContractError,
    DeadlineError,
    InternalError,
    OverloadedError,
    Retry,
    RewardClient,
    UnavailableError,
)
from reward_client.endpoints import Endpoints
from reward_client.testing import FakeServer

Connect = Callable[..., RewardClient]
Code = grpc.StatusCode
SECRET = "Bearer 7f3a"  # noqa: S105  # the test's own


@pytest.fixture
def servers() -> Iterator[list[FakeServer]]:
    """Three servers that answer 0, 1 and 2."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(FakeServer(lambda ids, i=i: np.full(len(ids), i))) for i in range(3)
        ]


def urls(servers: list[FakeServer]) -> list[str]:
    return [server.url for server in servers]


def test_several_servers_are_asked_in_turn(servers: list[FakeServer], connect: Connect) -> None:
    client = connect(urls(servers))
    answers = [client.score(["Hi"]).rewards[0] for _ in range(9)]
    assert sorted(answers) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_a_server_that_went_away_is_gone_around(
    servers: list[FakeServer], connect: Connect
) -> None:
    client = connect(urls(servers))
    for _ in range(3):
        client.score(["Hi"])
    servers[1].__exit__(None, None, None)
    answers = {client.score(["Hi"]).rewards[0] for _ in range(10)}
    assert answers == {0, 2}
    assert client.counts.retries >= 1


def test_a_server_that_comes_back_is_held_to_the_contract_again(connect: Connect) -> None:
    with FakeServer(lambda ids: ids[:, 0]) as first:
        client = connect(first.url)
        client.score(["Hi"])
        port = int(first.url.rpartition(":")[2])
    with pytest.raises(UnavailableError):  # gRPC hides a restart between two calls
        client.score(["Hi"])
    with FakeServer(lambda ids: ids[:, 0], port=port) as second:
        second.config.parameters["max_tokens"].string_value = "512"
        with pytest.raises(ContractError, match="max_tokens"):
            client.score(["Hi"])
        second.config.parameters["max_tokens"].string_value = "256"
        assert len(client.score(["Hi"]).rewards) == 1


def test_a_server_that_starts_late_is_waited_for(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    retry = Retry(attempts=1000, first_pause_s=0.01, longest_pause_s=0.05)
    client = connect(f"127.0.0.1:{port}", connection=Connection(retry=retry))
    with pytest.raises(UnavailableError) as caught:
        client.score(["Hi"], timeout_s=2)
    assert caught.value.attempts > 2, "it tried until its time was up"
    with FakeServer(lambda ids: ids[:, 0], port=port):
        assert len(client.score(["Hi"], timeout_s=HUNG_S).rewards) == 1


@pytest.mark.parametrize(
    ("code", "words", "kind"),
    [
        (Code.UNAVAILABLE, "Exceeds maximum queue size", OverloadedError),
        (Code.UNAVAILABLE, "Request timeout expired", DeadlineError),
        (Code.RESOURCE_EXHAUSTED, "full", OverloadedError),
    ],
)
def test_overload_and_deadline_are_not_retried(
    connect: Connect, code: grpc.StatusCode, words: str, kind: type[Exception]
) -> None:
    with FakeServer(lambda ids: ids[:, 0]) as fake:
        client = connect(fake.url)
        client.connect()
        fake.fail_with = (code, words)
        with pytest.raises(kind):
            client.score(["Hi"])
        assert len(fake.requests) == 1


def test_servers_may_differ_in_their_largest_batch(connect: Connect) -> None:
    with (
        FakeServer(lambda ids: ids[:, 0]) as large,
        FakeServer(lambda ids: ids[:, 0], max_batch_rows=2) as small,
    ):
        client = connect([large.url, small.url])
        client.connect()  # the large one has the first turn
        assert len(client.score(["a", "b", "c"]).rewards) == 3
        assert max(map(len, small.requests)) <= 2


def test_a_large_call_meets_a_server_that_takes_less(connect: Connect) -> None:
    """Its parts are sent together, some too large for their server; all are split anew."""
    with (
        FakeServer(lambda ids: ids[:, 0], max_batch_rows=4) as large,
        FakeServer(lambda ids: ids[:, 0], max_batch_rows=2) as small,
    ):
        client = connect([large.url, small.url])
        client.connect()
        assert len(client.score(["Hi"] * 11).rewards) == 11
        assert max(map(len, small.requests)) <= 2


def test_a_silent_server_costs_no_call_and_is_left_out(
    servers: list[FakeServer], connect: Connect
) -> None:
    client = connect(urls(servers), timeout_s=4)
    for _ in range(3):
        client.score(["Hi"])
    servers[1].delay_s = 10
    answered = [client.score(["Hi"]).rewards[0] for _ in range(12)]
    assert set(answered) == {0, 2}
    assert len(servers[1].requests) == 2


def test_a_connection_that_takes_its_time_is_waited_for(fake: FakeServer, connect: Connect) -> None:
    with Proxy(fake.url, delay_s=0.4) as proxy:
        client = connect(proxy.url)
        assert len(client.score(["Hi"]).rewards) == 1
        assert client.counts.retries == 0


def test_the_time_left_and_the_priority_reach_the_server(
    fake: FakeServer, connect: Connect
) -> None:
    client = connect(fake.url, timeout_s=2 * HUNG_S, priority="bulk")
    client.score(["Hi"])
    client.score(["Hi"], timeout_s=HUNG_S, priority="interactive")
    (first, second) = fake.parameters
    assert (first["priority"], second["priority"]) == (2, 1)
    assert HUNG_S * 1e6 < first["timeout"] <= 2 * HUNG_S * 1e6, "microseconds"
    assert 1e6 < second["timeout"] <= HUNG_S * 1e6


def test_without_a_priority_the_server_decides(fake: FakeServer, client: RewardClient) -> None:
    client.score(["Hi"])
    assert "priority" not in fake.parameters[0]


def test_a_cancelled_task_cancels_its_request(fake: FakeServer) -> None:
    async def give_up() -> None:
        async with AsyncRewardClient(fake.url) as client:
            fake.delay_s = 0.3
            task = asyncio.ensure_future(client.score(["Hi"]))
            while not fake.requests:  # noqa: ASYNC110  # it is another thread's
                await asyncio.sleep(0.01)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert task.cancelled()

    asyncio.run(give_up())
    assert eventually(lambda: fake.n_cancelled == 1)


def test_a_closed_client_says_so(fake: FakeServer) -> None:
    with RewardClient(fake.url) as client:
        client.score(["Hi"])
    with pytest.raises(ValueError, match="the client is closed"):
        client.score(["Hi"])


def test_an_asyncio_client_that_is_closed_says_so_and_cancels_nobody(fake: FakeServer) -> None:
    async def close() -> None:
        client = AsyncRewardClient(fake.url)
        await client.connect()
        fake.delay_s = 0.5
        task = asyncio.ensure_future(client.score(["Hi"]))
        while not fake.requests:  # noqa: ASYNC110  # it is another thread's
            await asyncio.sleep(0.01)
        await client.close()
        kinds = InternalError if sys.version_info >= (3, 11) else asyncio.CancelledError
        with pytest.raises(kinds):
            await task
        with pytest.raises(ValueError, match="the client is closed"):
            await client.score(["Hi"])

    asyncio.run(close())


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def pem(blob: trustme.Blob, path: Path) -> Path:
    blob.write_to_path(str(path))
    return path


@pytest.fixture
def roots(authority: trustme.CA, tmp_path: Path) -> Path:
    return pem(authority.cert_pem, tmp_path / "roots.pem")


def server_credentials(authority: trustme.CA, name: str, *, mutual: bool) -> grpc.ServerCredentials:
    issued = authority.issue_cert(name)
    pair = (issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes())
    return grpc.ssl_server_credentials(
        [pair],
        root_certificates=authority.cert_pem.bytes() if mutual else None,
        require_client_auth=mutual,
    )


def test_tls(authority: trustme.CA, roots: Path, connect: Connect) -> None:
    credentials = server_credentials(authority, "127.0.0.1", mutual=False)
    with FakeServer(lambda ids: ids[:, 0], credentials=credentials) as fake:
        client = connect(fake.url, connection=Connection(tls=TLS(roots)))
        assert len(client.score(["Hi"]).rewards) == 1
        for tls in (None, TLS()):  # plain text, and roots that do not know the authority
            stranger = connect(fake.url, connection=Connection(tls=tls, retry=Retry(1)))
            with pytest.raises(UnavailableError):
                stranger.connect()


def test_a_certificate_of_another_name(
    authority: trustme.CA, roots: Path, connect: Connect
) -> None:
    credentials = server_credentials(authority, "reward.example", mutual=False)
    with FakeServer(lambda ids: ids[:, 0], credentials=credentials) as fake:
        with pytest.raises(UnavailableError):
            connect(fake.url, connection=Connection(tls=TLS(roots), retry=Retry(1))).connect()
        named = Connection(tls=TLS(roots, server_name="reward.example"))
        assert connect(fake.url, connection=named).connect().name == "fake"


def test_mutual_tls(authority: trustme.CA, roots: Path, tmp_path: Path, connect: Connect) -> None:
    issued = authority.issue_cert("client.example")
    chain = pem(issued.cert_chain_pems[0], tmp_path / "client.pem")
    key = pem(issued.private_key_pem, tmp_path / "client.key")
    credentials = server_credentials(authority, "127.0.0.1", mutual=True)
    with FakeServer(lambda ids: ids[:, 0], credentials=credentials) as fake:
        client = connect(fake.url, connection=Connection(tls=TLS(roots, chain, key)))
        assert len(client.score(["Hi"]).rewards) == 1
        with pytest.raises(UnavailableError):
            connect(fake.url, connection=Connection(tls=TLS(roots), retry=Retry(1))).connect()


def test_headers_reach_every_call_and_no_log(
    fake: FakeServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    connection = Connection(metadata={"authorization": SECRET})
    client = connect(fake.url, connection=connection)
    client.score(["Hi"])
    assert len(fake.headers) == 4, "three to connect, one to score"
    assert all(headers["authorization"] == SECRET for headers in fake.headers)
    fake.fail_with = (Code.UNAVAILABLE, "gone")
    with pytest.raises(UnavailableError) as caught:
        client.score(["Hi"])
    shown = (caplog.text, str(caught.value), repr(connection), repr(client), repr(vars(client)))
    assert "gone" in caplog.text
    assert not any(SECRET in text for text in shown)


@pytest.mark.parametrize("ending", ["\n", "\u00e9", "\x7f"])
def test_a_header_that_grpc_refuses_is_named_and_not_shown(ending: str) -> None:
    with pytest.raises(ValueError, match="the value of header 'authorization'") as caught:
        Connection(metadata={"authorization": SECRET + ending})
    assert SECRET not in str(caught.value)


def test_keys_are_not_shown() -> None:
    assert "secret" not in repr(Connection(tls=TLS(None, "chain.pem", "secret.key")))


@pytest.mark.parametrize(
    "make",
    [
        lambda: TLS(certificate_chain="a.pem"),
        lambda: Retry(attempts=0),
        lambda: Retry(first_pause_s=-1),
        lambda: Retry(longest_pause_s=float("nan")),
        lambda: Connection(channels=0),
        lambda: Connection(metadata={"Authorization": "x"}),
        lambda: Connection(metadata={"a:b": "x"}),
        lambda: Connection(metadata={"": "x"}),
        lambda: Endpoints(["a:1", "a:1"]),
        lambda: Endpoints([""]),
    ],
)
def test_what_means_nothing_is_a_programming_mistake(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"go together|attempts|pauses|channels|header|addresses"):
        make()


def test_several_channels_answer_alike(fake: FakeServer, connect: Connect) -> None:
    client = connect(fake.url, connection=Connection(channels=3))
    assert {client.score(["Hi"]).rewards[0] for _ in range(6)} == {np.float32(172.5)}


def test_pauses_grow_to_the_longest() -> None:
    retry = Retry(first_pause_s=1, longest_pause_s=4)
    for attempt, longest in enumerate([1, 2, 4, 4, 4], start=1):
        pauses = [retry.pause_s(attempt) for _ in range(50)]
        assert longest / 2 <= min(pauses) < max(pauses) <= longest
