"""How a server is reached: addresses, certificates, headers, and what to do when it is away."""

import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc

_HEADER_NAME = re.compile("[0-9a-z_.-]+")
_HEADER_VALUE = re.compile("[ -~]*")

MAX_MESSAGE_BYTES = 64 * 1024 * 1024  # far above a full request of 128 rows, 131 kB


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
    """What happens when no server is there: try again, each time after a longer pause.

    Scoring changes nothing on the server, so that asking twice is harmless. Only a server
    that is away or loading is asked again; one that is full, too late, or refuses is not.

    Attributes:
        attempts: requests at most, the first included; other servers are tried at once, and
            do not count until each has been tried.
        first_pause_s: seconds before the second attempt; doubled each time.
        longest_pause_s: seconds that no pause exceeds.

    Raises:
        ValueError: fewer attempts than one, or pauses below 0.
    """

    attempts: int = 5
    first_pause_s: float = 0.05
    longest_pause_s: float = 2.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {self.attempts}")
        for pause_s in (self.first_pause_s, self.longest_pause_s):
            if not (pause_s >= 0 and math.isfinite(pause_s)):
                raise ValueError(f"pauses must be at least 0 and finite, not {pause_s}")

    def pause_s(self, attempt: int) -> float:
        """Seconds to wait after attempt number `attempt` (from 1), half of them by chance."""
        longest = min(self.first_pause_s * 2.0 ** (attempt - 1), self.longest_pause_s)
        # clients that lost the same server must not come back in the same instant
        return longest * random.uniform(0.5, 1.0)  # noqa: S311  # no secret hangs on it


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach the servers.

    Attributes:
        tls: certificates; plain text if None.
        metadata: headers of every call, names in lower case, such as
            `{"authorization": "Bearer ..."}` for a gateway. Never logged or shown.
        channels: HTTP/2 connections to each server; one carries some thousands of calls a second.
        retry: what to do when no server is there.

    Raises:
        ValueError: fewer channels than one, or a header that gRPC refuses.
    """

    tls: TLS | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    channels: int = 1
    retry: Retry = field(default_factory=Retry)

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ValueError(f"channels must be at least 1, not {self.channels}")
        for name, value in self.metadata.items():
            if not _HEADER_NAME.fullmatch(name):
                raise ValueError(f"header names are made of a-z, 0-9, _, - and ., not {name!r}")
            if not _HEADER_VALUE.fullmatch(value):  # which stays unsaid: it may be a secret
                raise ValueError(f"the value of header {name!r} is not all printable ASCII")

    def channel_options(self) -> list[tuple[str, str | int]]:
        """Settings of every gRPC channel."""
        options: list[tuple[str, str | int]] = [
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            # a name with several addresses, as dns:///name:8001, is spread over all of them
            ("grpc.lb_policy_name", "round_robin"),
            # a server that was restarted is found within our own retries
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.min_reconnect_backoff_ms", 2000),  # for a connection and its TLS to be made
            ("grpc.max_reconnect_backoff_ms", 1000),
            # otherwise the channels of one server share a connection
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if self.tls is not None and self.tls.server_name is not None:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return options
