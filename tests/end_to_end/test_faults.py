"""Faults around a server: it continues to answer correctly, and nothing is lost silently."""

import contextlib
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from lookup import free_ports
from running import Gate, gated, model_processes, pending, with_one_instance
from tritonclient.grpc import service_pb2, service_pb2_grpc
from waiting import HUNG_S, eventually

from reward_client import Connection, Retry, RewardClient, Tokenizer, wire
from reward_serve.model_process import children
from reward_serve.server import ServerOptions, TritonServer

TEXTS = ["Hi", "How are you?", "I am a fish."]
COMMAND = Path(sys.executable).with_name("gpt2-reward")
Stub = service_pb2_grpc.GRPCInferenceServiceStub
LARGE = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


@pytest.fixture(scope="module")
def own_server(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonServer]:
    """A server other than the session's, because these tests treat it badly."""
    own = with_one_instance(repository, tmp_path_factory.mktemp("own") / "repository")
    options = ServerOptions(own, grpc_port=0, http_port=0, metrics_port=0)
    with TritonServer(options) as server:
        yield server


@pytest.fixture
def client(own_server: TritonServer) -> Iterator[RewardClient]:
    once = Connection(retry=Retry(attempts=1))
    with RewardClient(own_server.grpc_url, connection=once) as client:
        yield client


@pytest.fixture
def stub(own_server: TritonServer) -> Iterator[Stub]:
    with grpc.insecure_channel(own_server.grpc_url, options=LARGE) as channel:
        yield Stub(channel)


@pytest.fixture
def rewards(client: RewardClient) -> Iterator[np.ndarray]:
    """Rewards of `TEXTS`, which have to be the same after the test."""
    before = client.score(TEXTS).rewards
    yield before
    np.testing.assert_allclose(client.score(TEXTS).rewards, before, rtol=0, atol=1e-5)


def request(ids: np.ndarray) -> service_pb2.ModelInferRequest:
    return wire.request_of(ids, model="gpt2_reward", version="", priority_level=None)


def malformed() -> dict[str, service_pb2.ModelInferRequest]:
    ids = np.zeros((2, 8), np.int32)
    found = {
        name: request(ids)
        for name in ("bytes missing", "bytes too many", "no bytes", "type", "name", "shape")
    }
    found["bytes missing"].raw_input_contents[0] = b"\0" * 63
    found["bytes too many"].raw_input_contents[0] = b"\0" * 65
    del found["no bytes"].raw_input_contents[:]
    found["type"].inputs[0].datatype = "FP32"
    found["name"].inputs[0].name = "ids"
    found["shape"].inputs[0].shape[:] = [2, 8, 1]
    found["negative shape"] = request(ids)
    found["negative shape"].inputs[0].shape[:] = [-2, -8]
    found["no rows"] = request(np.zeros((0, 8), np.int32))
    found["rows without end"] = request(ids)
    found["rows without end"].inputs[0].shape[:] = [2**31, 2**31]
    found["twice"] = request(ids)
    found["twice"].inputs.append(found["twice"].inputs[0])
    found["twice"].raw_input_contents.append(found["twice"].raw_input_contents[0])
    found["nothing"] = service_pb2.ModelInferRequest(model_name="gpt2_reward")
    return found


@pytest.mark.parametrize("fault", list(malformed()))
@pytest.mark.usefixtures("rewards")
def test_malformed_requests_are_refused(stub: Stub, fault: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(malformed()[fault], timeout=HUNG_S)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.usefixtures("rewards")
def test_rows_without_tokens_get_the_empty_texts_reward(client: RewardClient, stub: Stub) -> None:
    answer = stub.ModelInfer(request(np.zeros((2, 0), np.int32)), timeout=HUNG_S)
    (empty,) = client.score([""]).rewards
    np.testing.assert_allclose(wire.rewards_of(answer, 2), [empty] * 2, rtol=0, atol=1e-5)


def test_a_priority_that_does_not_exist_is_the_default(stub: Stub, rewards: np.ndarray) -> None:
    ids = Tokenizer().encode_rows(TEXTS)
    unknown = wire.request_of(ids, model="gpt2_reward", version="", priority_level=9)
    found = wire.rewards_of(stub.ModelInfer(unknown, timeout=HUNG_S), len(TEXTS))
    np.testing.assert_allclose(found, rewards, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("rewards")
@pytest.mark.parametrize("n_rows", [1, 16])
def test_64_mb_in_one_message_answer_nan(own_server: TritonServer, stub: Stub, n_rows: int) -> None:
    ids = np.ones((n_rows, 16 * 2**20 // n_rows), np.int32)
    answer = wire.rewards_of(stub.ModelInfer(request(ids), timeout=HUNG_S), n_rows)
    assert np.isnan(answer).all()
    for pid in model_processes(own_server):
        (peak_kb,) = re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        assert int(peak_kb) < 2_000_000, "comparing rows x rows x positions would take more"


@pytest.fixture
def gate(repository: Path, tmp_path: Path) -> Gate:
    return gated(repository, tmp_path / "repository")


@pytest.fixture
def gated_server(gate: Gate) -> Iterator[TritonServer]:
    options = ServerOptions(gate.repository, grpc_port=0, http_port=0, metrics_port=0)
    with TritonServer(options) as server:
        yield server


def test_poisoned_rows_leave_callers_in_the_same_execution_alone(
    gate: Gate, gated_server: TritonServer
) -> None:
    poison = np.full((3, 256), 50257, np.int32)
    poison[1] = -(2**31)
    poison[2] = 2**31 - 1
    with (
        grpc.insecure_channel(gated_server.grpc_url) as channel,
        RewardClient(gated_server.grpc_url, timeout_s=HUNG_S) as client,
        ThreadPoolExecutor(16) as pool,
    ):
        rewards = client.score(TEXTS).rewards
        with gate.closed():
            first = pool.submit(client.score, TEXTS)
            assert eventually(lambda: gate.n_executions() == 1)
            poisoned = [pool.submit(Stub(channel).ModelInfer, request(poison)) for _ in range(4)]
            sound = [pool.submit(client.score, TEXTS) for _ in range(8)]
            assert eventually(lambda: pending(gated_server) == 12)
        for one in (first, *sound):
            np.testing.assert_allclose(one.result().rewards, rewards, rtol=0, atol=1e-5)
        for one in poisoned:
            assert np.isnan(wire.rewards_of(one.result(), 3)).all()
    assert gate.n_executions() < 13


def test_clients_that_are_killed_leave_nothing_behind(
    gate: Gate, gated_server: TritonServer
) -> None:
    code = (
        "import sys; from concurrent.futures import ThreadPoolExecutor as Pool\n"
        "from reward_client import RewardClient\n"
        "client = RewardClient(sys.argv[1]); client.connect()\n"
        "with Pool(8) as pool: list(pool.map(lambda i: client.score([str(i)]), range(8)))\n"
    )
    with RewardClient(gated_server.grpc_url, timeout_s=HUNG_S) as client:
        before = client.score(TEXTS).rewards
        with gate.closed():
            gone = subprocess.Popen([sys.executable, "-c", code, gated_server.grpc_url])
            assert eventually(lambda: pending(gated_server) > 0)
            gone.kill()
            gone.wait()
        assert eventually(lambda: pending(gated_server) == 0)
        np.testing.assert_allclose(client.score(TEXTS).rewards, before, rtol=0, atol=1e-5)


def overflowing() -> service_pb2.ModelInferRequest:
    """A request of 2^64 bytes, 0 in 64 bits: Triton 2.51 passes it to the model's process."""
    found = request(np.zeros((0, 8), np.int32))
    found.inputs[0].shape[:] = [16, 2**58]
    return found


@pytest.fixture
def command(repository: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen, str, Path]]:
    """Run `gpt2-reward serve`. -> its process, its gRPC address, and the file with its output."""
    printed = tmp_path / "printed"
    ports = [f"--{name}-port=0" for name in ("grpc", "http", "metrics", "health")]
    own = with_one_instance(repository, tmp_path / "repository")
    words = [COMMAND, "serve", f"--repository={own}", *ports]
    with printed.open("wb") as file, subprocess.Popen(words, stderr=file) as process:
        assert eventually(lambda: "  log" in printed.read_text(), within_s=60)
        yield process, re.search(r"gRPC +(\S+)", printed.read_text())[1], printed
        process.terminate()


def test_a_model_process_that_dies_is_started_again(
    command: tuple[subprocess.Popen, str, Path],
) -> None:
    process, url, printed = command
    patient = Connection(retry=Retry(attempts=1000, longest_pause_s=0.5))
    with (
        grpc.insecure_channel(url, options=LARGE) as channel,
        RewardClient(url, timeout_s=HUNG_S, connection=patient) as client,
    ):
        wanted = client.score(TEXTS).rewards

        def answers_again(n_starts: int) -> bool:
            if printed.read_text().count("ready: serving") < n_starts:
                return False
            np.testing.assert_allclose(client.score(TEXTS).rewards, wanted, rtol=0, atol=1e-5)
            return True

        (triton,) = children(process.pid)
        (model,) = children(triton)
        os.kill(model, signal.SIGSTOP)
        with ThreadPoolExecutor(4) as pool:
            lost = [pool.submit(client.score, TEXTS) for _ in range(4)]
            os.kill(model, signal.SIGKILL)
        for one in lost:
            np.testing.assert_allclose(one.result().rewards, wanted, rtol=0, atol=1e-5)
        assert eventually(lambda: answers_again(2))
        with pytest.raises(grpc.RpcError, match=r"is not healthy|UNAVAILABLE"):
            Stub(channel).ModelInfer(overflowing(), timeout=HUNG_S, wait_for_ready=True)
        assert eventually(lambda: answers_again(3))
    process.terminate()
    assert process.wait(HUNG_S) == 0
    kept = re.findall(
        r"^the process of a model has died .*; log: (\S+);", printed.read_text(), re.MULTILINE
    )
    assert len(kept) == 2
    for log in kept:
        Path(log).unlink()


def test_calls_are_answered_by_the_instance_whose_process_lives(repository: Path) -> None:
    options = ServerOptions(repository, grpc_port=0, http_port=0, metrics_port=0)
    with TritonServer(options) as server, RewardClient(server.grpc_url) as client:
        wanted = client.score(TEXTS, timeout_s=HUNG_S).rewards
        dead, _alive = model_processes(server)
        os.kill(dead, signal.SIGKILL)
        for _ in range(4):  # Triton asks the two in turn
            rewards = client.score(TEXTS, timeout_s=HUNG_S).rewards
            np.testing.assert_allclose(rewards, wanted, rtol=0, atol=1e-5)
        assert client.counts.retries > 0


def test_sigterm_answers_what_is_in_flight_and_in_the_queue(
    gate: Gate, gated_server: TritonServer
) -> None:
    with RewardClient(gated_server.grpc_url, timeout_s=HUNG_S) as client:
        wanted = client.score(TEXTS).rewards
        with ThreadPoolExecutor(16) as pool:
            with gate.closed():
                first = pool.submit(client.score, TEXTS)
                assert eventually(lambda: gate.n_executions() == 1)
                waiting = [pool.submit(client.score, TEXTS) for _ in range(8)]
                assert eventually(lambda: pending(gated_server) == 8)
                gated_server.interrupt()
                assert eventually(lambda: "Waiting for in-flight" in gated_server.log.read_text())
            for one in (first, *waiting):
                np.testing.assert_allclose(one.result().rewards, wanted, rtol=0, atol=1e-5)
        gated_server.wait()


def test_a_request_of_no_rows_and_no_tokens_does_not_delay_the_end(repository: Path) -> None:
    """Triton's backends return without answering it: it is lost, and stays in flight forever."""
    options = replace(free_ports(repository, "--log-verbose=1"), stop_timeout_s=300)
    with TritonServer(options) as server:

        def n_executed() -> int:
            return server.log.read_text().count("from PENDING to EXECUTING")

        before = n_executed()  # by the warm-up
        with grpc.insecure_channel(server.grpc_url) as channel:
            call = Stub(channel).ModelInfer.future(request(np.zeros((0, 0), np.int32)))
            assert eventually(lambda: n_executed() > before)
            server.interrupt()
            assert eventually(lambda: "Waiting for in-flight" in server.log.read_text())
            assert not call.done()
            server.wait()  # and does not take the 300 s


BRACKETS = b'{"inputs":' + b"[" * 50_000 + b"]" * 50_000 + b"}"


def test_a_body_that_kills_triton_is_refused_before_it_is_read(
    command: tuple[subprocess.Popen, str, Path],
) -> None:
    process, url, printed = command
    http = re.search(r"HTTP +(\S+)", printed.read_text())[1]
    (triton,) = children(process.pid)
    for path in ("models/gpt2_reward/infer", "repository/index", "models/gpt2_reward/stats"):
        asked = urllib.request.Request(f"{http}/v2/{path}", BRACKETS)
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(asked)
    assert urllib.request.urlopen(f"{http}/v2/health/ready").status == 200
    with RewardClient(url) as client:
        assert len(client.score(TEXTS).rewards) == 3
    assert list(children(process.pid)) == [triton], "the same process"


def test_idle_connections_do_not_shut_others_out(repository: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    options = ServerOptions(repository, grpc_port=0, http_port=0, metrics_port=0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    server = TritonServer(options)
    try:
        server.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        host, port = server.grpc_url.split(":")
        for _ in range(400):
            stack.enter_context(socket.create_connection((host, int(port))))
        assert server.takes_connections()
        with RewardClient(server.grpc_url) as client:
            assert len(client.score(TEXTS).rewards) == 3
