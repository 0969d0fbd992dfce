"""Keeps a tritonserver running: restarts it when it ends, and tracks whether it is healthy."""

import math
import threading
import time
from dataclasses import dataclass, field

from reward_serve.errors import (
    CrashError,
    EndedError,
    ModelProcessError,
    ServerLogError,
    StartError,
    UnhealthyError,
    UpgradeError,
)
from reward_serve.health import N_RECENT, Health
from reward_serve.heartbeat import Heartbeat, Pulse
from reward_serve.log import Tell
from reward_serve.server import TritonServer

REASONS = (
    (ModelProcessError, "model_process_died"),
    (UnhealthyError, "heartbeat"),
    (UpgradeError, "upgrade"),
    (EndedError, "server_died"),
    (StartError, "start_failed"),
)


@dataclass(frozen=True, slots=True)
class Restarts:
    """How often, and after what pauses, a server is restarted.

    Attributes:
        limit: failures in a row that are followed by a restart; the next one is final.
        first_pause_s: seconds before the second restart in a row; doubled each time. The first
            restart is immediate.
        longest_pause_s: seconds that no pause exceeds.
        calm_s: seconds of service after which earlier failures are forgotten.
    """

    limit: int = 6
    first_pause_s: float = 1.0
    longest_pause_s: float = 30.0
    calm_s: float = 60.0

    def pause_s(self, failures: int) -> float:
        """Seconds to wait after that many failures in a row, from 1."""
        if failures < 2:  # noqa: PLR2004
            return 0.0
        return min(self.first_pause_s * 2.0 ** (failures - 2), self.longest_pause_s)


@dataclass(slots=True)
class Supervisor:
    """Runs a server until it is told to stop.

    Attributes:
        server: the current server; at first one that is not started yet.
        health: kept up to date.
        pulse: how often golden rows are scored.
        tell: told what happens, one line per call.
        restarts: how often, and after what pauses, the server is restarted.
    """

    server: TritonServer
    health: Health
    pulse: Pulse
    tell: Tell
    restarts: Restarts = field(default_factory=Restarts)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _failures: int = 0

    def stop(self) -> None:
        """Have the server finish its requests and end; a second call ends it at once."""
        self._stopping.set()
        self.server.interrupt()

    def run(self) -> None:
        """Serve until `stop`.

        Raises:
            ServerLogError: the server failed once too often in a row, or its first start failed
                for a reason that will not change.
            ServeError: the server cannot be started at all.
        """
        while True:
            served_since = math.inf
            try:
                with self.server:
                    served_since = time.monotonic()
                    self._serve()
                    return
            except ServerLogError as error:
                if self._stopping.is_set():
                    error.log.unlink()  # told to stop: not a failure, so no log to keep
                    return
                if time.monotonic() - served_since > self.restarts.calm_s:
                    self._failures = 0
                self._recover(error)
            self.server = self.server.successor()
            if self._stopping.wait(self.restarts.pause_s(self._failures)):
                return

    def _serve(self) -> None:
        server, health = self.server, self.health
        health.mark_ready()
        self.tell(announcement(server))
        if not self.pulse.every_s:
            server.wait()
            return
        door = server.takes_connections
        with Heartbeat(server.control, server.models, door, self.pulse, health):
            server.wait(self._unhealthy)

    def _unhealthy(self) -> str:
        away = {*self.server.quarantine.reasons, *self.server.failed}
        self.health.n_quarantined = len(away)
        misses = self.health.misses
        if misses < self.pulse.misses:
            return ""
        return f"{misses} of the last {N_RECENT} heartbeats failed; {self.health.miss}"

    def _recover(self, error: ServerLogError) -> None:
        """Record a failure, and put away the versions that caused it; raise it if it is final.

        A first start that fails is repeated only if it crashed or a version was put away.
        """
        self._failures += 1
        put = self.server.put_away_failed()
        refused = isinstance(error, StartError) and not isinstance(error, CrashError)
        hopeless = refused and not self.health.has_been_ready and not put
        if hopeless or self._failures > self.restarts.limit:
            self.health.mark_away(first_line(error))
            raise error
        reason = next(name for kind, name in REASONS if isinstance(error, kind))
        self.health.count_restart(reason)
        self.health.mark_away(f"starting again: {first_line(error)}")
        pause_s = self.restarts.pause_s(self._failures)
        after = f" in {pause_s:g} s" if pause_s else ""
        self.tell(
            f"{first_line(error)}; log: {error.log}; starting again{after} "
            f"({self._failures} of {self.restarts.limit})"
        )


def first_line(error: Exception) -> str:
    """What happened, and the first reason for it, in one line."""
    lines = str(error).splitlines()
    reason = lines[1].strip() if len(lines) > 2 else ""  # noqa: PLR2004  # the last names the log
    return f"{lines[0]} {reason}".strip().rstrip(":")


def announcement(server: TritonServer) -> str:
    """The lines that say that a server is ready, and give its addresses."""
    return "\n".join(
        [
            f"ready: serving {', '.join(server.models.names)} from {server.options.repository}",
            f"  gRPC     {server.grpc_url}",
            f"  HTTP     {server.http_url}",
            f"  metrics  {server.metrics_url}",
            f"  log      {server.log}",
        ]
    )
