"""What networks do: connections whose bytes are swallowed, and servers that stop speaking."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from reward_client import Connection, Retry, RewardClient

SERVER = Path(__file__).parent / "client" / "bulk_server.py"


class Proxy:
    """Passes connections on to a server.

    Args:
        url: of the server.

    Attributes:
        n_accepted: connections so far.
    """

    def __init__(self, url: str) -> None:
        host, _, port = url.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._swallowed: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.n_accepted = 0

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> "Proxy":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        for one in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def swallow(self) -> None:
        """As after a fail-over: bytes of the connections of now are taken, and go nowhere."""
        with self._lock:
            self._swallowed.update(self._open)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                with self._lock:
                    self.n_accepted += 1
                    self._open += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if source not in self._swallowed:
                    sink.sendall(data)


class Process:
    """A `FakeServer` in a process of its own, which can be stopped as a whole."""

    def __init__(self) -> None:
        command = [sys.executable, str(SERVER), "0"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.url = self._process.stdout.readline().strip()

    def pause(self) -> None:
        """From now on it accepts connections, as the kernel does that, and never says a word."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


@contextlib.contextmanager
def processes(n: int) -> Iterator[list[Process]]:
    """Several servers."""
    with contextlib.ExitStack() as stack:
        started = []
        for _ in range(n):
            started.append(Process())
            stack.callback(started[-1].close)
        yield started


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def score_once(url: str) -> None:
    """At the second attempt at the latest; a process of a pool finds it here."""
    connection = Connection(retry=Retry(attempts=2, first_pause_s=0))
    RewardClient(url, connection=connection).score(["Hi"])
