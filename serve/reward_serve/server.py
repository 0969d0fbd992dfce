"""Starts a tritonserver, waits until it is ready, and leaves nothing behind when it stops."""

import os
import shutil
import sys
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from reward_serve.control import Control, greets
from reward_serve.ends import OutOfMemory, how
from reward_serve.errors import (
    CrashError,
    EndedError,
    ServerLogError,
    StartError,
    UnhealthyError,
)
from reward_serve.launch import arguments, environment, make_folder
from reward_serve.loads import Loads
from reward_serve.log import Tell, bound, follow, keep, reasons, tells_of_a_dead_process
from reward_serve.models import Models, check_repository
from reward_serve.options import ServerOptions
from reward_serve.ports import Ports, choose_ports, own_address
from reward_serve.process import Process
from reward_serve.quarantine import Quarantine, Version
from reward_serve.ready import is_there, why_not_ready
from reward_serve.structured import JsonLines
from reward_serve.upgrades import Upgrades
from reward_serve.wheel import Wheel, find_wheel, lay_out_backends

__all__ = ["ServerOptions", "TritonServer", "check_repository"]

Failure = TypeVar("Failure", bound=ServerLogError)

SYNC_S = 2.0
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # where Triton's Python backend keeps its regions


def _keep_quiet(_line: str) -> None:
    """Drop a line: the caller did not give a `tell`."""


class TritonServer:
    """A tritonserver; a context manager in whose block it is ready.

    Args:
        options: how to run it.
        quarantine: versions that it does not serve; it adds those that fail, and its successor
            gets the same object.
        tell: told what happens while it runs, one line per call.

    Attributes:
        options: as given, but the host as an address once started.
        quarantine: shared with the successors.

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
        self._process: Process | None = None
        self._folder: Path | None = None
        self._models: Models | None = None
        self._loads = Loads(Path(os.devnull))
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
    def _running(self) -> Process:
        if self._process is None:
            raise RuntimeError("the server was not started")
        return self._process

    @property
    def _reachable_host(self) -> str:
        return "127.0.0.1" if self.options.host == "0.0.0.0" else self.options.host  # noqa: S104

    @property
    def control(self) -> Control:
        """The launcher's access to this server."""
        return Control(self.http_url, self.options.own_headers)

    def takes_connections(self) -> bool:
        """Whether the gRPC port accepts a new connection."""
        tls = self.options.has_tls
        return greets(self._reachable_host, self._ports.grpc, tls=tls, timeout_s=5.0)

    @property
    def models(self) -> Models:
        """The models that it is shown."""
        if self._models is None:
            raise RuntimeError("the server was not started")
        return self._models

    def start(self) -> None:
        """Start, and return when every model is ready.

        Raises:
            HostError: this machine lacks what the server needs.
            RepositoryError: there is nothing to serve.
            PortError: a port is in use, or the host is not this machine.
            StartError: the server ended or was not ready in time; carries the server's own reason.
            CrashError: a signal ended it, or a model's process died, during the start.
        """
        self.options = replace(self.options, host=own_address(self.options.host))
        options = self.options
        check_repository(options.repository, options.models)
        wheel = find_wheel()
        self._ports = choose_ports(
            options.host, Ports(options.grpc_port, options.http_port, options.metrics_port)
        )
        self._folder = make_folder()
        try:
            self._models = Models(
                options.repository,
                self._folder / "models",
                self.quarantine,
                self._tell,
                options.models,
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
            unhealthy: called about once per second; if it returns a reason, the server is ended.

        Raises:
            ModelProcessError: a serving model's process has died, and the server was stopped.
            UpgradeError: the server was waiting for a version that cannot be loaded, and others
                changed.
            UnhealthyError: `unhealthy` gave a reason, and the server was stopped.
            EndedError: it ended without `interrupt`; its log is kept.
        """
        process = self._running
        upgrades = Upgrades(
            self.pid,
            loads=self._loads,
            models=self.models,
            control=self.control,
            limit_s=self.options.load_timeout_s,
            memory=self._memory,
            tell=self._tell,
        )
        while (code := process.wait()) is None:
            if self._stop_signals:
                process.drain(self.options.stop_timeout_s)
                return
            bound(self.log)
            end = upgrades.look()
            if end is None and (reason := unhealthy()):
                end = UnhealthyError, reason
            if end is not None:
                self._end_now(*end)
        if not self._stop_signals:
            died = self._memory.explain(how(code))
            raise self._failure(EndedError, f"tritonserver ended by itself ({died})")

    def successor(self) -> "TritonServer":
        """A server with the same options and ports, not started yet."""
        grpc, http, metrics = self._ports
        options = self.options
        if grpc:
            options = replace(options, grpc_port=grpc, http_port=http, metrics_port=metrics)
        return TritonServer(options, self.quarantine, self._tell)

    def interrupt(self) -> None:
        """Ask the server to finish its requests and end; a second call ends it at once."""
        self._stop_signals += 1
        if self._process is not None:
            if self._stop_signals == 1:
                self._process.terminate()
            else:
                self._process.kill()

    def stop(self) -> None:
        """End the server, its helper processes, its shared memory and its temporary files."""
        if self._ended.is_set():
            return  # by now another process group may have this one's number
        if self._process is not None:
            self._process.end(self.options.stop_timeout_s)
        self._ended.set()
        for thread in self._threads:
            thread.join()
        for region in SHARED_MEMORY.glob(f"{self._region}*"):
            region.unlink(missing_ok=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def put_away_failed(self) -> list[Version]:
        """Put away versions that failed to load or were being loaded, if there is an older one.

        The others that Triton has begun to load were waiting, and are not to blame.

        Returns:
            the versions that were put away.
        """
        if self._models is None:
            return []
        loading = [*self._loads.begun][:1]
        return self._models.put_away([*self._loads.failed, *loading], "it could not be loaded")

    @property
    def failed(self) -> frozenset[Version]:
        """Versions that Triton could not load."""
        return frozenset(self._loads.failed)

    def _follow_repository(self) -> None:
        while not self._ended.wait(SYNC_S):
            self.models.sync()

    def _end_now(self, kind: type[Failure], reason: str) -> None:
        self._running.kill()  # draining it would take until its time-out
        while self._running.wait() is None:
            pass
        if not self._stop_signals:
            raise self._failure(kind, reason)

    def _launch(self, wheel: Wheel, env: dict[str, str]) -> None:
        folder = self.log.parent
        words = arguments(
            self.options,
            self._ports,
            models=folder / "models",
            backends=folder / "backends",
            region=self._region,
        )
        self._loads = Loads(self.log)
        self._process = Process(
            [str(wheel.server), *words],
            self.log,
            env,
            end_with_parent=self.options.end_with_parent,
        )
        if self.options.verbose:
            error = sys.stderr.buffer
            sink = JsonLines(error) if self.options.json_log else error
            self._start_thread(follow, self.log, sink, self._ended)
        if self.options.follows_repository:
            self._start_thread(self._follow_repository)

    def _start_thread(self, target: Callable[..., None], *words: object) -> None:
        thread = threading.Thread(target=target, args=words)
        thread.start()
        self._threads.append(thread)

    def _wait_until_ready(self) -> None:
        timeout_s = self.options.ready_timeout_s
        if failed := why_not_ready(self._running, self._answers, self._memory, timeout_s):
            # Triton notices some deaths by itself, and then ends with an exit code
            crashed = failed.by_signal or tells_of_a_dead_process(
                self.log.read_text("utf-8", "replace")
            )
            raise self._failure(CrashError if crashed else StartError, failed.reason)

    def _answers(self) -> bool:
        # services start in the order gRPC, HTTP, metrics: if the last one answers, all do
        if not self.control.is_ready("health/ready"):
            return False
        return not self.options.has_metrics or is_there(self.metrics_url)

    def _failure(self, kind: type[Failure], what: str) -> Failure:
        """An error with the server's own reasons; the log is kept at the path in the message."""
        self._loads.update()
        kept = keep(self.log)
        found = reasons(kept.read_text("utf-8", "replace"))
        lines = "".join(f"\n  {reason}" for reason in found)
        return kind(f"{what}:{lines}\nits full log: {kept}", reasons=found, log=kept)
