"""How servers are reached: certificates, headers, and what to do if one is unavailable."""

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
    # calls to a name with several addresses, such as dns:///name:8001, are spread over them all
    "grpc.lb_policy_name": "round_robin",
    # a server that was restarted is found by our own retries
    "grpc.initial_reconnect_backoff_ms": 50,
    "grpc.min_reconnect_backoff_ms": 2000,  # time for a connection and its TLS handshake
    "grpc.max_reconnect_backoff_ms": 1000,
    # otherwise all channels to one server, replacements included, share a connection
    "grpc.use_local_subchannel_pool": 1,
    # Triton closes connections that ping more often than every 300 s (its
    # --grpc-http2-min-recv-ping-interval-without-data) or while no call is in flight
    "grpc.keepalive_time_ms": 310_000,
    "grpc.keepalive_permit_without_calls": 0,
    # with keepalive on, gRPC sets TCP_USER_TIMEOUT to this as well: the kernel closes the
    # connection to a host that does not even acknowledge what was sent for this long
    "grpc.keepalive_timeout_ms": 10_000,
}


@dataclass(frozen=True, slots=True)
class TLS:
    """Certificates for TLS, as PEM files. The server's certificate is always verified.

    Attributes:
        root_certificates: authorities to trust; the public ones that gRPC ships if None.
        certificate_chain: the client's own, for servers that ask for one (mutual TLS).
        private_key: private key of that certificate.
        server_name: the name in the server's certificate, if it is not the address's.

    Raises:
        ValueError: a certificate without its key, or a key without its certificate.
    """

    root_certificates: Path | str | None = None
    certificate_chain: Path | str | None = None
    private_key: Path | str | None = field(default=None, repr=False)
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate_chain is None) != (self.private_key is None):
            raise ValueError("certificate_chain and private_key go together")

    def credentials(self) -> grpc.ChannelCredentials:
        """The files' contents as gRPC's credentials.

        Raises:
            OSError: a file cannot be read.
        """
        files = (self.root_certificates, self.private_key, self.certificate_chain)
        pem = [None if file is None else Path(file).read_bytes() for file in files]
        return grpc.ssl_channel_credentials(*pem)


@dataclass(frozen=True, slots=True)
class Retry:
    """What to do if a server is unavailable: try again, each time after a longer pause.

    Scoring changes nothing on the server, so asking twice is harmless. Only a server that is
    down or loading is asked again; one that is full, is too late or refuses is not. Attempts at
    servers that answer without serving, and requests to a second server, are paid from a budget:
    ten, plus one for every five answers. Once it is spent, calls fail after their first attempt.

    Attributes:
        attempts: the most attempts at a request, the first included; other servers are tried at
            once, and do not count until each has been tried. None waits for a server as long as
            the call's `timeout_s` allows, even if its queue is full: for training and other work
            that should survive a restart. The budget then only makes the pauses longer.
        first_pause_s: seconds before the second attempt; doubled for each later one.
        longest_pause_s: the longest pause in seconds.
        hedge_after_s: seconds of silence from a server after which another one is asked as
            well; half of the time left if that is less. The first answer counts.

    Raises:
        ValueError: fewer than one attempt, or seconds that are below 0 or not finite.
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
        """Seconds to wait after attempt number `attempt` (from 1), half of them random."""
        longest = min(self.first_pause_s * 2.0 ** min(attempt - 1, 60), self.longest_pause_s)
        # clients that lost the same server must not come back at the same instant
        return longest * random.uniform(0.5, 1.0)  # noqa: S311  # no secret depends on it


Headers: TypeAlias = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach the servers.

    Attributes:
        tls: certificates; no encryption if None.
        metadata: headers of every call, names in lower case, such as
            `{"authorization": "Bearer ..."}` for a gateway; or a function that returns them,
            called for each request, for tokens that expire. Never logged or shown.
        channels: HTTP/2 connections to each server; one carries thousands of calls per second.
        retry: what to do if a server is unavailable. None means `Retry()`, except for the adapters
            for training, which then wait for the server, as with `Retry(attempts=None)`.
        grpc_options: gRPC's channel arguments by name; they override the client's own.

    Raises:
        ValueError: fewer than one channel, a header that gRPC refuses, or an option that is
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
                    "grpc_options maps names such as 'grpc.keepalive_time_ms' to a number or a "
                    f"string, not {name!r} to {type(value).__name__}"
                )

    def headers(self) -> tuple[tuple[str, str], ...]:
        """The headers of the next request.

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
    """A connection for work that should survive a server's restart: it waits if `retry` is None."""
    connection = connection or Connection()
    return replace(connection, retry=connection.retry or Retry(attempts=None))


def checked_headers(headers: Headers) -> tuple[tuple[str, str], ...]:
    """Headers as gRPC takes them.

    Raises:
        ValueError: a header that gRPC refuses.
    """
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"header names are made of a-z, 0-9, _, - and ., not {name!r}")
        if not _HEADER_VALUE.fullmatch(value):  # not shown: it may be a secret
            raise ValueError(f"the value of header {name!r} is not all printable ASCII")
    return tuple(headers.items())
