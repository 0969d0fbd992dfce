"""TLS, client certificates and restricted protocols of the real server."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException
from waiting import HUNG_S

from reward_client import TLS, Connection, Retry, RewardClient, UnavailableError
from reward_client.cli import main
from reward_serve.errors import SecurityError
from reward_serve.security import HEADER, Security
from reward_serve.server import ServerOptions, TritonServer

KEY = "d41c8a"


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with certificates of a server, a client and a stranger."""
    folder = tmp_path_factory.mktemp("pem")
    for name, host in (("server", "127.0.0.1"), ("client", "client.example")):
        issued = AUTHORITY.issue_cert(host)
        issued.cert_chain_pems[0].write_to_path(str(folder / f"{name}.pem"))
        issued.private_key_pem.write_to_path(str(folder / f"{name}.key"))
    stranger = trustme.CA().issue_cert("client.example")
    stranger.cert_chain_pems[0].write_to_path(str(folder / "stranger.pem"))
    stranger.private_key_pem.write_to_path(str(folder / "stranger.key"))
    AUTHORITY.cert_pem.write_to_path(str(folder / "roots.pem"))
    return folder


AUTHORITY = trustme.CA()


def serve(repository: Path, security: Security) -> TritonServer:
    return TritonServer(
        ServerOptions(
            repository,
            grpc_port=0,
            http_port=0,
            metrics_port=0,
            triton_options=security.triton_options(),
        )
    )


@pytest.fixture(scope="module")
def mutual(repository: Path, pem: Path) -> Iterator[TritonServer]:
    security = Security(pem / "server.pem", pem / "server.key", pem / "roots.pem")
    with serve(repository, security) as server:
        yield server


@pytest.fixture(scope="module")
def controlled(repository: Path) -> Iterator[TritonServer]:
    with serve(repository, Security(control_key=KEY)) as server:
        yield server


def asked(server: TritonServer, tls: TLS | None) -> int:
    connection = Connection(tls=tls, retry=Retry(attempts=1))
    with RewardClient(server.grpc_url, timeout_s=HUNG_S, connection=connection) as client:
        return len(client.score(["Hi"]).rewards)


def test_mutual_tls_serves_those_with_a_certificate(mutual: TritonServer, pem: Path) -> None:
    assert asked(mutual, TLS(pem / "roots.pem", pem / "client.pem", pem / "client.key")) == 1


@pytest.mark.parametrize("who", ["nobody", "anonymous", "stranger"])
def test_mutual_tls_serves_nobody_else(mutual: TritonServer, pem: Path, who: str) -> None:
    stranger = TLS(pem / "roots.pem", pem / "stranger.pem", pem / "stranger.key")
    tls = {"nobody": None, "anonymous": TLS(pem / "roots.pem"), "stranger": stranger}[who]
    with pytest.raises(UnavailableError):
        asked(mutual, tls)


def test_tls_without_client_certificates(repository: Path, pem: Path) -> None:
    with serve(repository, Security(pem / "server.pem", pem / "server.key")) as server:
        assert asked(server, TLS(pem / "roots.pem")) == 1
        with pytest.raises(UnavailableError):
            asked(server, None)


def status(url: str, body: dict | None = None, **headers: str) -> int:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_with_tls_http_answers_health_alone(mutual: TritonServer) -> None:
    assert status(f"{mutual.http_url}/v2/health/ready") == 200
    for path in ("/v2", "/v2/models/gpt2_reward/config", "/v2/models/gpt2_reward/stats"):
        assert status(mutual.http_url + path) == 403
    assert status(f"{mutual.http_url}/v2/models/gpt2_reward/infer", {"inputs": []}) == 403


def test_without_tls_http_answers_health_alone_too(controlled: TritonServer) -> None:
    assert status(f"{controlled.http_url}/v2/health/ready") == 200
    infer = f"{controlled.http_url}/v2/models/gpt2_reward/infer"
    assert status(infer, {"inputs": []}) == 403
    assert status(infer, {"inputs": []}, **{HEADER: KEY}) == 400, "it is read, and refused"


def test_http_scores_if_asked_for(repository: Path, pem: Path) -> None:
    with serve(repository, Security(http_inference=True)) as server:
        assert status(f"{server.http_url}/v2/models/gpt2_reward/config") == 200
        assert status(f"{server.http_url}/v2/repository/index", {}) == 403
    with pytest.raises(SecurityError, match="no TLS"):
        Security(pem / "server.pem", pem / "server.key", http_inference=True)


def test_control_is_closed_to_those_without_the_key(controlled: TritonServer) -> None:
    with InferenceServerClient(controlled.grpc_url) as client:
        header = {f"triton-grpc-protocol-{HEADER}": KEY}
        assert client.get_model_repository_index(headers=header).models[0].name == "gpt2_reward"
        for headers in (None, {f"triton-grpc-protocol-{HEADER}": "guess"}):
            for call in (
                client.get_model_repository_index,
                client.get_system_shared_memory_status,
                client.get_trace_settings,
                client.get_log_settings,
            ):
                with pytest.raises(InferenceServerException, match="This protocol is restricted"):
                    call(headers=headers)
    index = f"{controlled.http_url}/v2/repository/index"
    assert status(index, {}) == 403
    assert status(index, {}, **{HEADER: KEY}) == 200
    assert asked(controlled, None) == 1


def test_without_a_key_control_is_closed_to_all() -> None:
    first, second = (Security().triton_options() for _ in range(2))
    assert len(first) == 2
    assert first != second, "an unknown key, another one each time"
    assert all(len(option.rpartition("=")[2]) == 64 for option in first)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("server.pem", None, None), "go together"),
        ((None, None, "roots.pem"), "need TLS"),
        (("server.pem", "absent.key", None), r"there is no file .*absent\.key"),
    ],
)
def test_what_does_not_fit_is_said(pem: Path, files: tuple[str | None, ...], message: str) -> None:
    with pytest.raises(SecurityError, match=message):
        Security(*(None if name is None else pem / name for name in files))
    with pytest.raises(SecurityError, match="empty"):
        Security(control_key=" ")
    assert KEY not in repr(Security(control_key=KEY))


def test_the_command_refuses_before_it_starts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--tls-certificate=absent.pem"]) == 1
    assert "go together" in capsys.readouterr().err
    assert main(["serve", "--control-key-env=ABSENT"]) == 1
    assert "no environment variable 'ABSENT'" in capsys.readouterr().err
