"""How a server is reached: addresses, certificates, headers, and what to do when it is away."""

import math
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import grpc

_HEADER_NAME = re.compile("[0-9a-z_.-]+")
_HEADER_VALUE = re.compile("[ -~]*")

MAX_MESSAGE_BYTES = 64 * 1024 * 1024  # far above a full request of 128 rows, 131 kB

_CHANNEL_OPTIONS: dict[str, str | int] = {
    "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
    "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
    # a name with several addresses, as dns:///name:8001, is spread over all of them
    "grpc.lb_policy_name": "round_robin",
    # a server that was restarted is found within our own retries
    "grpc.initial_reconnect_backoff_ms": 50,
    "grpc.min_reconnect_backoff_ms": 2000,  # for a connection and its TLS to be made
    "grpc.max_reconnect_backoff_ms": 1000,
    # otherwise the channels of one server, and one's replacement, share a connection
    "grpc.use_local_subchannel_pool": 1,
    # Triton closes connections that ping more often than every 300 s (its
    # --grpc-http2-min-recv-ping-interval-without-data) or without a call on its way
    "grpc.keepalive_time_ms": 310_000,
    "grpc.keepalive_permit_without_calls": 0,
    # with keepalive on, gRPC sets TCP_USER_TIMEOUT to this as well: a host that does not even
    # acknowledge what was sent for so long has its connection closed by the kernel
    "grpc.keepalive_timeout_ms": 10_000,
}


@dataclass(frozen=True, slots=True)
class TLS:
    """Certificates, PEM files each. The server's is always verified.

    Attributes:
        root_certificates: whom to trust; the public authorities that gRPC ships if None.
        certificate_chain: the client's own, for servers that ask for one (mutual TLS).
        private_key: of that certificate.
        server_name: the name the server's certificate carries, where it is not the address's.

    Raises:
        ValueError: one of certificate and key without the other.
    """

    root_certificates: Path | str | None = None
    certificate_chain: Path | str | None = None
    private_key: Path | str | None = field(default=None, repr=False)
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate_chain is None) != (self.private_key is None):
            raise ValueError("certificate_chain and private_key go together")

    def credentials(self) -> grpc.ChannelCredentials:
        """The files' content as gRPC takes it.

        Raises:
            OSError: a file cannot be read.
        """
        files = (self.root_certificates, self.private_key, self.certificate_chain)
        pem = [None if file is None else Path(file).read_bytes() for file in files]
        return grpc.ssl_channel_credentials(*pem)


@dataclass(frozen=True, slots=True)
class Retry:
    """What happens when a server is not there: try again, each time after a longer pause.

    Scoring changes nothing on the server, so asking twice is harmless. Only a server that is
    away or loading is asked again; one that is full, too late, or refuses is not. Attempts at
    servers that answer without serving, and second requests, are paid from a budget: ten, and
    one more for every five answers. Once it is spent, calls fail after their first attempt.

    Attributes:
        attempts: requests at most, the first included; other servers are tried at once, and
            do not count until each has been tried. None waits for a server as long as the
            call's `timeout_s` allows, with a full queue as well: for training and other work
            that should come through a restart. The budget then only makes the pauses longer.
        first_pause_s: seconds before the second attempt; doubled each time.
        longest_pause_s: seconds that no pause exceeds.
        hedge_after_s: seconds without a word from a server after which another one is asked as
            well; half of the time left if that is less. The first answer counts.

    Raises:
        ValueError: fewer attempts than one, or seconds below 0.
    """

    attempts: int | None = 5
    first_pause_s: float = 0.05
    longest_pause_s: float = 2.0
    hedge_after_s: float = 2.0

    def __post_init__(self) -> None:
        if self.attempts is not None and self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {self.attempts}")
        for pause_s in (self.first_pause_s, self.longest_pause_s, self.hedge_after_s):
            if not (pause_s >= 0 and math.isfinite(pause_s)):
                raise ValueError(f"pauses must be at least 0 and finite, not {pause_s}")

    def pause_s(self, attempt: int) -> float:
        """Seconds to wait after attempt number `attempt` (from 1), half of them by chance."""
        longest = min(self.first_pause_s * 2.0 ** min(attempt - 1, 60), self.longest_pause_s)
        # clients that lost the same server must not come back in the same instant
        return longest * random.uniform(0.5, 1.0)  # noqa: S311  # no secret hangs on it


Headers: TypeAlias = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach the servers.

    Attributes:
        tls: certificates; plain text if None.
        metadata: headers of every call, names in lower case, such as
            `{"authorization": "Bearer ..."}` for a gateway; or a function that returns them,
            called for each request, for tokens that expire. Never logged or shown.
        channels: HTTP/2 connections to each server; one carries some thousands of calls a second.
        retry: what to do when a server is not there; `Retry()` if None, while the adapters for
            training then wait for it, as with `Retry(attempts=None)`.
        grpc_options: gRPC's channel arguments by name, in place of the client's own.

    Raises:
        ValueError: fewer channels than one, a header that gRPC refuses, or an option that is
            not a gRPC one.
    """

    tls: TLS | None = None
    metadata: Headers | Callable[[], Headers] = field(default_factory=dict, repr=False)
    channels: int = 1
    retry: Retry | None = None
    grpc_options: Mapping[str, str | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ValueError(f"channels must be at least 1, not {self.channels}")
        if not callable(self.metadata):
            checked_headers(self.metadata)
        for name, value in self.grpc_options.items():
            if not name.startswith("grpc.") or not isinstance(value, str | int):
                raise ValueError(
                    "grpc_options are names such as 'grpc.keepalive_time_ms' with a number or a "
                    f"text each, not {name!r}: {type(value).__name__}"
                )

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Those of the next request.

        Raises:
            ValueError: `metadata` is a function and returns a header that gRPC refuses.
        """
        if callable(self.metadata):
            return checked_headers(self.metadata())
        return tuple(self.metadata.items())

    def channel_options(self) -> list[tuple[str, str | int]]:
        """Settings of every gRPC channel."""
        options: dict[str, str | int] = {**_CHANNEL_OPTIONS}
        if self.tls is not None and self.tls.server_name is not None:
            options["grpc.ssl_target_name_override"] = self.tls.server_name
        return list({**options, **self.grpc_options}.items())


def patient(connection: Connection | None) -> Connection:
    """For work that should come through a server's restart: it waits, unless told otherwise."""
    connection = connection or Connection()
    return replace(connection, retry=connection.retry or Retry(attempts=None))


def checked_headers(headers: Headers) -> tuple[tuple[str, str], ...]:
    """Headers as gRPC takes them.

    Raises:
        ValueError: one that gRPC refuses.
    """
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"header names are made of a-z, 0-9, _, - and ., not {name!r}")
        if not _HEADER_VALUE.fullmatch(value):  # which stays unsaid: it may be a secret
            raise ValueError(f"the value of header {name!r} is not all printable ASCII")
    return tuple(headers.items())
