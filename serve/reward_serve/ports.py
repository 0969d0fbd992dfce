"""Chooses the ports of a server before it starts, so that one in use is reported at once."""

import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import NamedTuple

from reward_serve.errors import PortError


class Ports(NamedTuple):
    """The port of each service."""

    grpc: int
    http: int
    metrics: int


def own_address(host: str) -> str:
    """The IPv4 address of a host: Triton's HTTP service takes neither names nor IPv6 addresses.

    Raises:
        PortError: the host has none.
    """
    try:
        found = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        hint = (
            "0.0.0.0 listens on every address" if ":" in host else "give an address of this machine"
        )
        raise PortError(
            f"cannot listen on {host}: it is not an IPv4 address or the name of one, which is all "
            f"that Triton's HTTP and metrics take; {hint}",
            port=0,
        ) from error
    return str(found[0][4][0])


def outside_address() -> str | None:
    """The address by which other machines probably reach this one; None if there is no network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only chooses a way out
        except OSError:
            return None
        return str(probe.getsockname()[0])


def choose_ports(host: str, wanted: Ports) -> Ports:
    """The wanted ports, all of them free on `host`; 0 is replaced by a free one.

    Raises:
        PortError: a port is in use, given twice or out of range, or `host` is not this machine.
    """
    named = [port for port in wanted if port]
    for port in named:
        if named.count(port) > 1:
            raise PortError(f"port {port} is given to two services; each needs its own", port=port)
    with contextlib.ExitStack() as stack:  # hold them all until the last is chosen
        return Ports(*(stack.enter_context(_bound(host, port)).getsockname()[1] for port in wanted))


@contextlib.contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    with socket.socket() as listener:
        # a port that only waits for its last connections to time out is free for Triton too
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except (OSError, OverflowError) as error:
            why = _why(error)
            raise PortError(f"cannot listen on {host}:{port}: {why}", port=port) from error
        yield listener


def _why(error: OSError | OverflowError) -> str:
    if isinstance(error, OverflowError):
        return "ports go from 0 to 65535; choose another one"
    if error.errno == errno.EADDRINUSE:
        return f"{error.strerror}; stop the program that uses it, or choose another port"
    return f"{error.strerror}; choose another address or port"
