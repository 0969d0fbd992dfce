"""Starts a tritonserver, waits until it is ready, and leaves nothing behind when it stops."""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from reward_client.contract import MODEL_NAME
from reward_serve.errors import PortError, RepositoryError, StartError
from reward_serve.log import reasons
from reward_serve.wheel import find_wheel, lay_out_backends, library_path

POLL_S = 0.1
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
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


class TritonServer:
    """A running tritonserver; a context manager that has it ready inside the block.

    Example:
        >>> with TritonServer(ServerOptions(Path("model_repository"))) as server:  # doctest: +SKIP
        ...     print(server.grpc_url)
    """

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self._ports = _Ports(0, 0, 0)
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._region = f"gpt2_reward_{uuid.uuid4().hex[:12]}_"
        self._stop_signals = 0

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
        if self._process is None:
            raise RuntimeError("the server was not started")
        return self._process.pid

    @property
    def log(self) -> Path:
        """The server's log; gone after `stop`."""
        if self._folder is None:
            raise RuntimeError("the server was not started")
        return self._folder / "tritonserver.log"

    @property
    def _reachable_host(self) -> str:
        return "127.0.0.1" if self.options.host == "0.0.0.0" else self.options.host  # noqa: S104

    def start(self) -> None:
        """Start, and return when every model is ready.

        Raises:
            HostError: this machine lacks what the server needs.
            RepositoryError: there is nothing to serve.
            PortError: a port is taken.
            StartError: the server ended or was not ready in time; with its own reason.
        """
        check_repository(self.options.repository)
        wheel = find_wheel()
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": library_path(wheel),
            # the stub takes its packages from the python3 that it finds first, and in some
            # Python versions ignores PYTHONPATH: let it find this environment's
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        }
        self._ports = _choose_ports(self.options)
        self._folder = Path(tempfile.mkdtemp(prefix="gpt2-reward-"))
        try:
            backends = self._folder / "backends"
            lay_out_backends(wheel, backends)
            with self.log.open("wb") as log:
                self._process = subprocess.Popen(  # noqa: S603  # the wheel's own binary
                    [str(wheel.server), *self._arguments(backends)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,  # Ctrl-C is ours to pass on
                    preexec_fn=_end_with_parent if self.options.end_with_parent else None,  # noqa: PLW1509
                )
            if self._stop_signals:  # told to stop before there was anything to stop
                self._process.terminate()
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def wait(self) -> int:
        """Wait until the server ends, and return its exit code."""
        if self._process is None:
            raise RuntimeError("the server was not started")
        return self._process.wait()

    def interrupt(self) -> None:
        """Ask the server to finish what it has and end; at the second time, end at once."""
        self._stop_signals += 1
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM if self._stop_signals == 1 else signal.SIGKILL)

    def stop(self) -> None:
        """End the server, its helper processes, its shared memory and its temporary files."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.terminate()
                try:
                    self._process.wait(self.options.stop_timeout_s + 5)
                except subprocess.TimeoutExpired:
                    self._process.kill()
                    self._process.wait()
            with contextlib.suppress(ProcessLookupError):  # the usual case: nobody is left
                os.killpg(self._process.pid, signal.SIGKILL)
        for region in SHARED_MEMORY.glob(f"{self._region}*"):
            region.unlink(missing_ok=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _arguments(self, backends: Path) -> Iterator[str]:
        options, ports = self.options, self._ports
        yield f"--model-repository={options.repository.resolve()}"
        yield f"--backend-directory={backends}"
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
        process = self._process
        assert process is not None  # noqa: S101  # started by the only caller
        while not _is_ready(f"{self.http_url}/v2/health/ready"):
            if (code := process.poll()) is not None:
                raise self._start_error(f"tritonserver ended while starting (exit code {code})")
            if time.monotonic() > deadline:
                raise self._start_error(
                    f"tritonserver was not ready within {self.options.ready_timeout_s:g} s"
                )
            time.sleep(POLL_S)

    def _start_error(self, what: str) -> StartError:
        """With the server's own reason; the log is kept where the message says."""
        descriptor, name = tempfile.mkstemp(prefix="gpt2-reward-", suffix=".log")
        os.close(descriptor)
        kept = Path(shutil.copyfile(self.log, name))
        found = reasons(kept.read_text("utf-8", "replace"))
        lines = "".join(f"\n  {reason}" for reason in found)
        return StartError(f"{what}:{lines}\nits full log: {kept}", reasons=found, log=kept)


def check_repository(repository: Path) -> None:
    """Refuse a repository that has nothing to serve.

    Raises:
        RepositoryError: it is not there, or no model in it has a version.
    """
    if not repository.is_dir():
        raise RepositoryError(f"there is no model repository at {repository}")
    if not any(path.name.isdecimal() and path.is_dir() for path in repository.glob("*/*")):
        raise RepositoryError(
            f"{repository} has no version of any model yet; publish one of {MODEL_NAME} first: "
            f"gpt2-reward export CHECKPOINT --repository {repository}"
        )


@dataclass(frozen=True, slots=True)
class _Ports:
    grpc: int
    http: int
    metrics: int


def _choose_ports(options: ServerOptions) -> _Ports:
    """The ports asked for, all of them free; 0 becomes a free one."""
    with contextlib.ExitStack() as stack:  # hold them all until the last is chosen
        return _Ports(
            *(
                stack.enter_context(_bound(options.host, port)).getsockname()[1]
                for port in (options.grpc_port, options.http_port, options.metrics_port)
            )
        )


@contextlib.contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    with socket.socket() as listener:
        # a port that only waits for its last connections to time out is free for Triton too
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise PortError(
                f"cannot listen on {host}:{port}: {error.strerror}; stop what runs there, or "
                "choose another port",
                port=port,
            ) from error
        yield listener


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
