"""Readiness and server information, asked anew; invalid addresses; both clients."""

import asyncio
import http.server
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from network import free_port
from waiting import eventually

from reward_client import (
    AsyncRewardClient,
    ContractError,
    RejectedError,
    RewardClient,
    UnavailableError,
)
from reward_client.cli import main
from reward_client.testing import FakeServer
from reward_serve.server import TritonServer

Connect = Callable[..., RewardClient]
GONE = (grpc.StatusCode.UNAVAILABLE, "gone")


def test_readiness_is_asked_anew(fake: FakeServer, client: RewardClient) -> None:
    assert client.is_ready()
    fake.fail_with = GONE
    assert not client.is_ready()
    fake.fail_with = None
    assert client.is_ready(timeout_s=5)
    fake.config.parameters["max_tokens"].string_value = "512"
    with pytest.raises(ContractError):
        client.is_ready()


def test_one_ready_server_is_enough(fake: FakeServer, connect: Connect) -> None:
    assert connect([f"127.0.0.1:{free_port()}", fake.url]).is_ready()
    assert not connect([f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"]).is_ready()


def test_a_server_that_loads_is_waited_for(fake: FakeServer, connect: Connect) -> None:
    client = connect(fake.url)
    fake.fail_with = (grpc.StatusCode.UNAVAILABLE, "'gpt2_reward' is not at ready state")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.wait_until_ready, 60)
        assert eventually(lambda: client.counts.retries >= 2)
        fake.fail_with = None
        assert waiting.result().model_versions == (1,)
    fake.fail_with = GONE
    with pytest.raises(UnavailableError, match="gone"):
        client.wait_until_ready(0.2)


def test_who_answers_is_asked_anew(fake: FakeServer, client: RewardClient) -> None:
    assert client.server_info().model_versions == (1,)
    fake.version = 3
    fake.config.max_batch_size = 2
    info = client.server_info()
    assert (info.model_versions, info.max_batch_rows) == ((3,), 2)


def test_connecting_to_a_dead_server_fails_though_it_was_known(
    fake: FakeServer, client: RewardClient
) -> None:
    client.connect()
    fake.fail_with = GONE
    with pytest.raises(UnavailableError):
        client.connect()


def test_a_closed_client_cannot_be_entered(fake: FakeServer) -> None:
    client = RewardClient(fake.url)
    with client:
        pass
    for use in (client.connect, client.is_ready, client.__enter__):
        with pytest.raises(ValueError, match="the client is closed"):
            use()

    async def enter() -> None:
        client = AsyncRewardClient(fake.url)
        async with client:
            pass
        for use in (client.connect, client.is_ready, client.__aenter__):
            with pytest.raises(ValueError, match="the client is closed"):
                await use()

    asyncio.run(enter())


def test_info_on_the_command_line(fake: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", f"--url={fake.url}"]) == 0
    shown = capsys.readouterr().out
    assert fake.url in shown
    assert "gpt2_reward" in shown
    assert main(["info", f"--url={fake.url}", "--json"]) == 0
    assert '"max_batch_rows": 4' in capsys.readouterr().out
    fake.config.parameters["max_tokens"].string_value = "512"
    assert main(["info", f"--url={fake.url}"]) == 1
    assert "max_tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("http://reward:8001", "write 'reward:8001'"),
        ("https://reward:8001/", r"write 'reward:8001' with Connection\(tls=TLS\(\)\)"),
        ("grpc://reward:8001", "write 'reward:8001'"),
        ("grpcs://reward:8001", "TLS"),
        ("reward", "write 'reward:8001'"),
        ("reward:", "write host:port"),
        ("reward:8001/", "write 'reward:8001'"),
        ("reward:8001/v2", "without a slash or path"),
        ("a:8001,b:8001", r"give a list: \['a:8001', 'b:8001'\]"),
        ("a:8001 b:8001", r"give a list"),
        ("a:8001\n", r"give a list"),
        ("reward:80010", "from 1 to 65535"),
        ("reward:0", "from 1 to 65535"),
        ("reward:port", "host:port"),
        ("::1:8001", r"\[address\]:port"),
        ("dns:///reward", "the port is missing"),
        ("ipv4:10.0.0.1", "the port is missing"),
        (8001, "text such as"),
    ],
)
@pytest.mark.parametrize("as_list", [False, True])
def test_an_address_that_is_none_is_refused_with_what_to_write(
    url: str, remedy: str, *, as_list: bool
) -> None:
    with pytest.raises(ValueError, match=remedy):
        RewardClient([url] if as_list or url == 8001 else url)


@pytest.mark.parametrize(
    "url",
    [
        "reward:8001",
        "reward-1.ns_2.svc:8001",
        "10.0.0.1:8001",
        "[::1]:8001",
        "dns:///reward:8001",
        "dns:reward:8001",
        "dns://8.8.8.8/reward:8001",
        "ipv4:10.0.0.1:8001,10.0.0.2:8001",
        "ipv6:[::1]:8001",
        "unix:/run/reward.sock",
        "unix:///run/reward.sock",
        "xds:///reward:8001",
    ],
)
def test_what_grpc_takes_is_taken(url: str) -> None:
    RewardClient(url).close()


@pytest.fixture
def web_server() -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_port_that_speaks_http_is_named(web_server: str, connect: Connect) -> None:
    with pytest.raises((RejectedError, UnavailableError), match=r"HTTP.*8001") as caught:
        connect(web_server).score(["Hi"])
    if "failed parsing" not in str(caught.value).lower():  # gRPC 1.66 does not say what it read
        assert isinstance(caught.value, RejectedError)
        assert f"{web_server} speaks HTTP/1, not gRPC" in str(caught.value)


def test_tritons_http_and_metrics_ports_are_named(server: TritonServer) -> None:
    for url in (server.http_url, server.metrics_url):
        address = url.partition("://")[2].partition("/")[0]
        with (
            pytest.raises((RejectedError, UnavailableError), match=r"HTTP.*metrics.*8001"),
            RewardClient(address),
        ):
            pass
