"""The server's health as the launcher knows it: a state, counters, and a port that shows them.

Triton's own health says that a model was loaded. This one says that golden rows are answered.
"""

import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MAX_CONNECTIONS = 32
TIMEOUT_S = 5.0
N_RECENT = 10  # heartbeats; a healthy instance beside one that hangs answers about half of them
CONTENT_TYPE = "text/plain; charset=utf-8"


@dataclass(slots=True)
class Health:
    """What is known about the server; threads share it.

    Attributes:
        reason: why it is not ready; "" if it is.
        has_been_ready: whether it was ever ready.
        miss: what was wrong at the last heartbeat that failed.
        restarts: restarts by reason, since the launcher began.
        failures: heartbeats that failed, by reason.
        n_quarantined: versions that are not served because they are damaged or failed to load.
        beat_s: seconds that the last good heartbeat took.
        models: whether each model answered its golden rows correctly, by name.
    """

    reason: str = "starting"
    has_been_ready: bool = False
    miss: str = ""
    restarts: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    n_quarantined: int = 0
    beat_s: float = 0.0
    models: dict[str, bool] = field(default_factory=dict)
    _failed: deque[bool] = field(default_factory=lambda: deque(maxlen=N_RECENT))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_ready(self) -> bool:
        """Whether callers should be sent here."""
        return not self.reason

    @property
    def misses(self) -> int:
        """How many of the last `N_RECENT` heartbeats since the server's start have failed."""
        with self._lock:
            return sum(self._failed)

    def mark_ready(self) -> None:
        """Record that the server has started; it counts as healthy until a heartbeat fails."""
        with self._lock:
            self.has_been_ready = True
            self.reason = ""
            self._failed.clear()

    def mark_away(self, reason: str) -> None:
        """Record that the server is not running: starting, stopping, or dead."""
        with self._lock:
            self.reason = reason
            self._failed.clear()
            self.models = dict.fromkeys(self.models, False)

    def note_models(self, models: dict[str, bool]) -> None:
        """Record for each model whether it was healthy at the last heartbeat."""
        with self._lock:
            self.models = models

    def mark_alive(self, seconds: float | None) -> None:
        """Record a good heartbeat; `seconds` is None if the server was at work, but too busy."""
        with self._lock:
            self.reason = ""
            self._failed.append(False)
            if seconds is not None:
                self.beat_s = seconds

    def mark_miss(self, kind: str, detail: str) -> None:
        """Record a heartbeat that was not answered, or answered wrongly."""
        with self._lock:
            self.reason = self.miss = detail
            self._failed.append(True)
            self.failures[kind] += 1

    def count_restart(self, reason: str) -> None:
        """Count a restart of the server."""
        with self._lock:
            self.restarts[reason] += 1

    def metrics(self) -> str:
        """The metrics, in Prometheus's text format."""
        with self._lock:
            lines = [
                *_gauge(
                    "ready", "Whether golden rows are answered correctly.", int(not self.reason)
                ),
                *_by_model(
                    "model_ready", "Whether a model answers its golden rows correctly.", self.models
                ),
                *_gauge("heartbeat_seconds", "Duration of the last good heartbeat.", self.beat_s),
                *_gauge(
                    "quarantined_versions", "Versions that are not served.", self.n_quarantined
                ),
                *_counter("heartbeat_failures", "Heartbeats that failed.", self.failures),
                *_counter("restarts", "Restarts of the server.", self.restarts),
            ]
        return "".join(f"{line}\n" for line in lines)


def _gauge(name: str, text: str, value: float) -> list[str]:
    full = f"gpt2_reward_{name}"
    return [f"# HELP {full} {text}", f"# TYPE {full} gauge", f"{full} {value:g}"]


def _by_model(name: str, text: str, values: dict[str, bool]) -> list[str]:
    *heading, _ = _gauge(name, text, 0)
    samples = (f'gpt2_reward_{name}{{model="{model}"}} {ok:d}' for model, ok in values.items())
    return [*heading, *samples]


def _counter(name: str, text: str, values: Counter[str]) -> list[str]:
    full = f"gpt2_reward_{name}_total"
    known = dict.fromkeys(KINDS[name], 0) | values  # Prometheus misses the rise of a new series
    samples = [f'{full}{{reason="{reason}"}} {value}' for reason, value in known.items()]
    return [f"# HELP {full} {text}", f"# TYPE {full} counter", *samples]


KINDS = {
    "heartbeat_failures": ("silent", "wrong", "refused"),
    "restarts": ("server_died", "model_process_died", "heartbeat", "start_failed", "upgrade"),
}


class HealthPort:
    """A port that shows a `Health`: `/ready`, `/live` and `/metrics`. A context manager.

    Args:
        health: what to show.
        host: address to listen on.
        port: the port number; 0 takes a free one.

    Attributes:
        url: the address where it listens.

    Raises:
        OSError: it cannot listen on the port.
    """

    def __init__(self, health: Health, host: str, port: int) -> None:
        self._server = _Server((host, port), _handler_of(health))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(5.0,), daemon=True)
        reachable = "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104
        self.url = f"http://{reachable}:{self._server.server_address[1]}"

    def __enter__(self) -> "HealthPort":
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.stop()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    """A server that takes `MAX_CONNECTIONS` at a time, each in a thread; others wait."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)

    def process_request(self, request: object, client_address: object) -> None:
        self._slots.acquire()
        super().process_request(request, client_address)  # type: ignore[arg-type]

    def process_request_thread(self, request: object, client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)  # type: ignore[arg-type]
        finally:
            self._slots.release()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


def _handler_of(health: Health) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = TIMEOUT_S  # for the request to arrive
        server_version = "gpt2-reward"
        sys_version = ""

        def do_GET(self) -> None:  # the name that http.server calls
            status, body = _answer(health, self.path)
            content = body.encode()
            self.send_response(status)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its own name
            """Log nothing: probes come every few seconds."""

    return Handler


def _answer(health: Health, path: str) -> tuple[int, str]:
    if path == "/live":
        return 200, "live\n"
    if path == "/ready":
        return (200, "ready\n") if health.is_ready else (503, f"{health.reason}\n")
    if path == "/metrics":
        return 200, health.metrics()
    return 404, "no such page; there are /ready, /live and /metrics\n"
