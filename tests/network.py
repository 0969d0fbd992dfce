"""Network faults: connections whose bytes are swallowed, and servers that stop responding."""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from reward_client import Connection, Retry, RewardClient

A_RECORD = 1
SERVER = Path(__file__).parent / "client" / "bulk_server.py"


class Proxy:
    """Passes connections on to a server.

    Args:
        url: the server's address.
        host: the proxy's own address.
        port: the proxy's own port; any free one if 0.
        delay_s: seconds until an accepted connection is passed on.

    Attributes:
        n_accepted: connections so far.
    """

    def __init__(
        self, url: str, host: str = "127.0.0.1", port: int = 0, *, delay_s: float = 0.0
    ) -> None:
        target_host, _, target_port = url.rpartition(":")
        self._target = (target_host, int(target_port))
        self._listener = socket.create_server((host, port))
        self._delay_s = delay_s
        self._open: list[socket.socket] = []
        self._swallowed: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.n_accepted = 0

    @property
    def url(self) -> str:
        return ":".join(map(str, self._listener.getsockname()))

    def __enter__(self) -> "Proxy":
        self._start(self._accept)
        return self

    def __exit__(self, *error: object) -> None:
        """End every thread, then close every socket: a socket that is not closed is a warning."""
        accepting, *_ = self._threads
        _shut(self._listener)
        accepting.join()
        for one in self._open:
            _shut(one)
        for thread in self._threads:
            thread.join()
        for one in (self._listener, *self._open):
            one.close()

    def swallow(self) -> None:
        """Take the bytes of present connections and drop them, as after a fail-over."""
        with self._lock:
            self._swallowed.update(self._open)

    def _start(self, target: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._open.append(near)
                time.sleep(self._delay_s)
                far = socket.create_connection(self._target)
                with self._lock:
                    self.n_accepted += 1
                    self._open.append(far)
                for pair in ((near, far), (far, near)):
                    self._start(self._pump, *pair)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if source not in self._swallowed:
                    sink.sendall(data)


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


class Names:
    """A name server that knows one name.

    Args:
        addresses: IPv4 addresses of the name.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = addresses
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))

    def url(self, port: int) -> str:
        """URL of a server under the name, which is looked up only here."""
        return f"dns://127.0.0.1:{self._socket.getsockname()[1]}/reward.test:{port}"

    def __enter__(self) -> "Names":
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _answer(self) -> None:
        while True:
            query, sender = self._socket.recvfrom(512)
            if not query:
                return
            self._socket.sendto(self._response(query), sender)

    def _response(self, query: bytes) -> bytes:
        """RFC 1035, 4.1: header, the question again, and addresses if those were asked for."""
        end = query.index(0, 12) + 5  # labels, their end, type and class
        question, (kind,) = query[12:end], struct.unpack("!H", query[end - 4 : end - 2])
        addresses = self.addresses if kind == A_RECORD else ()
        header = query[:2] + struct.pack("!5H", 0x8180, 1, len(addresses), 0, 0)
        records = [
            struct.pack("!3HIH", 0xC00C, A_RECORD, 1, 0, 4) + socket.inet_aton(address)
            for address in addresses
        ]
        return header + question + b"".join(records)


class Process:
    """A `FakeServer` in a process of its own, which can be stopped as a whole."""

    def __init__(self) -> None:
        command = [sys.executable, str(SERVER), "0"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.url = self._process.stdout.readline().strip()

    def pause(self) -> None:
        """Stop the process: the kernel still accepts connections, but nothing is answered."""
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
    """Run several servers."""
    with contextlib.ExitStack() as stack:
        started = []
        for _ in range(n):
            started.append(Process())
            stack.callback(started[-1].close)
        yield started


@contextlib.contextmanager
def two_under_one_url(kind: str) -> Iterator[tuple[list[Process], str]]:
    """Two servers, and one URL for both: an address `list`, or a `name` that is looked up."""
    with processes(2) as servers, contextlib.ExitStack() as stack:
        if kind == "list":
            yield servers, "ipv4:" + ",".join(server.url for server in servers)
            return
        hosts, port = ["127.0.0.2", "127.0.0.3"], 0
        for server, host in zip(servers, hosts, strict=True):
            proxy = stack.enter_context(Proxy(server.url, host, port))
            port = int(proxy.url.rpartition(":")[2])
        yield servers, stack.enter_context(Names(hosts)).url(port)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def answers(url: str) -> bool:
    """Whether an HTTP server answers without an error."""
    try:
        with urllib.request.urlopen(url):
            return True
    except urllib.error.HTTPError as error:
        error.close()
    except OSError:
        pass
    return False


def score_once(url: str) -> None:
    """Score a text in at most two attempts; it is here so that a pool's processes can import it."""
    connection = Connection(retry=Retry(attempts=2, first_pause_s=0))
    RewardClient(url, connection=connection).score(["Hi"])
