"""Several servers used as one: in turn, skipping those that are down."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from reward_client.addresses import check_address, has_many_addresses
from reward_client.results import ModelInfo, ServerInfo
from reward_client.silence import MIN_SILENCE_S, Silence

REST_S = 1.0  # a server that was down is left out for this long, while others answer
REST_BY_SILENCE = 20.0  # a silent server is left out for this many times the wait in vain
LONGEST_REST_S = 10.0

IDLE_S = 1.0  # a server not heard from for this long may have been restarted, with another model
HELD_S = 1.0  # even under traffic, another server may take the address, or reload its model


@dataclass(slots=True)
class Endpoint:
    """One address, and what is known of the server there.

    Attributes:
        index: its place in the client's list.
        url: host and gRPC port.
        has_many: whether several servers may answer there.
        info: None until the server has been held to the contract, and again after it was down.
        versions: versions of the model that were held to the contract.
        held_at: `time.monotonic()` when that was last done.
        version: version of the model that answered last.
        silence: what was heard from there.
        away_until: `time.monotonic()` until which others are preferred.
    """

    index: int
    url: str
    has_many: bool = False
    info: ServerInfo | None = None
    versions: set[int] = field(default_factory=set)
    held_at: float = 0.0
    version: int | None = None
    silence: Silence = field(default_factory=Silence)
    away_until: float = 0.0

    def known(self) -> ServerInfo | None:
        """What is known of the server, unless it may have changed unnoticed.

        None makes the caller check the server again. Under traffic, only the first call that finds
        a check due gets None, and concurrent calls continue.
        """
        now = time.monotonic()
        if self.info is None or now - self.silence.heard_at >= IDLE_S:
            return None
        if now - self.held_at >= HELD_S:
            self.held_at = now
            return None
        return self.info

    def model(self, version: str) -> ModelInfo | None:
        """What is known of the model that will probably answer there; None if nothing is.

        Args:
            version: the version asked for; "" for the server's choice.
        """
        info = self.info  # other threads may forget it
        if info is None:
            return None
        if version:
            return info.of_version(int(version))
        return info.of_version(self.version or 0) or info.models[-1]

    def hold(self, info: ServerInfo, *versions: int) -> None:
        """Note that the server keeps the contract, for these versions of the model."""
        self.held_at = time.monotonic()
        self.versions.update(versions)
        self.info = info

    def forget(self) -> None:
        """Forget the server: another one may answer next time."""
        self.info = None
        self.versions.clear()


class Endpoints:
    """Round-robin over servers. Safe across threads.

    Args:
        urls: one address, or several.

    Raises:
        ValueError: no address, or one that is empty, given twice, or not a gRPC address.
    """

    def __init__(self, urls: str | Sequence[str]) -> None:
        addresses = [urls] if isinstance(urls, str) else list(urls)
        if not addresses or not all(addresses) or len(set(addresses)) < len(addresses):
            raise ValueError(f"expected one or several different addresses, got {addresses}")
        for address in addresses:
            check_address(address)
        self.all = [
            Endpoint(index, url, has_many_addresses(url)) for index, url in enumerate(addresses)
        ]
        self._next = 0
        self._lock = threading.Lock()

    def pick(self, version: int | None = None) -> Endpoint:
        """The next server that is not away, or simply the next one if all are.

        Args:
            version: version of the model; servers that answered with it last are preferred.
        """
        now = time.monotonic()
        with self._lock:
            turn = self.all[self._next :] + self.all[: self._next]
            present = [endpoint for endpoint in turn if endpoint.away_until <= now] or turn
            wanted = [one for one in present if one.version == version] if version else []
            chosen = (wanted or present)[0]
            self._next = (chosen.index + 1) % len(self.all)
            return chosen

    def another(self, than: Endpoint) -> Endpoint | None:
        """A server that may answer while the given one does not."""
        if than.has_many:
            return than  # gRPC gives the next request to the next address
        now = time.monotonic()
        present = [one for one in self.all if one is not than and one.away_until <= now]
        return min(present, key=lambda one: (one.index - than.index) % len(self.all), default=None)

    def mark_away(self, endpoint: Endpoint) -> None:
        """Prefer others for a while; what answers there next is held to the contract again."""
        endpoint.away_until = time.monotonic() + REST_S
        endpoint.forget()

    def mark_given_up(self, endpoint: Endpoint, began: float) -> None:
        """Note that a request was given up; prefer other servers if this one is silent."""
        waited_s = endpoint.silence.given_up(began)
        if waited_s >= MIN_SILENCE_S:
            rest_s = min(REST_BY_SILENCE * waited_s, LONGEST_REST_S)
            endpoint.away_until = time.monotonic() + rest_s

    def any_present(self) -> bool:
        """Whether there is a server that is not known to be away."""
        now = time.monotonic()
        return any(endpoint.away_until <= now for endpoint in self.all)

    def model(self, version: str) -> ModelInfo | None:
        """What is known of the model that will probably answer; None before the first answer.

        Args:
            version: the version asked for; "" for the server's choice.
        """
        return next(filter(None, (endpoint.model(version) for endpoint in self.all)), None)

    def max_batch_rows(self) -> int | None:
        """Rows that fit into a request to any server known so far; None before the first."""
        known = [endpoint.info for endpoint in self.all]  # other threads may forget some
        return min((info.max_batch_rows for info in known if info), default=None)
