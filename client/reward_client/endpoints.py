"""Several servers as one: in turn, and around those that are away."""

import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from reward_client.results import ServerInfo

REST_S = 1.0  # a server that was away is left out for this long, while others answer
SILENT_REST_S = 10.0  # one that was silent, which costs whoever asks it all of their time


@dataclass(slots=True)
class Endpoint:
    """One address, and what is known of who answers there.

    Attributes:
        index: its place in the client's list.
        url: host and gRPC port.
        info: None until it has been held to the contract, and again after it was away.
        away_until: `time.monotonic()` until which others are preferred.
    """

    index: int
    url: str
    info: ServerInfo | None = None
    away_until: float = 0.0


class Endpoints:
    """Round-robin over servers. Safe across threads.

    Args:
        urls: one address, or several.

    Raises:
        ValueError: no address, or one that is empty or given twice.
    """

    def __init__(self, urls: str | Sequence[str]) -> None:
        addresses = [urls] if isinstance(urls, str) else list(urls)
        if not addresses or not all(addresses) or len(set(addresses)) < len(addresses):
            raise ValueError(f"expected one or several different addresses, got {addresses}")
        self.all = [Endpoint(index, url) for index, url in enumerate(addresses)]
        self._turn = itertools.cycle(self.all)
        self._lock = threading.Lock()

    def pick(self) -> Endpoint:
        """The next server that is not away; the next one where all are."""
        now = time.monotonic()
        with self._lock:
            for _ in self.all:
                endpoint = next(self._turn)
                if endpoint.away_until <= now:
                    return endpoint
            return next(self._turn)

    def mark_away(self, endpoint: Endpoint, rest_s: float = REST_S) -> None:
        """Prefer others for a while; whoever answers there next is held to the contract anew."""
        endpoint.away_until = time.monotonic() + rest_s
        endpoint.info = None

    def any_present(self) -> bool:
        """Whether there is a server that is not known to be away."""
        now = time.monotonic()
        return any(endpoint.away_until <= now for endpoint in self.all)

    def max_batch_rows(self) -> int | None:
        """Rows that fit into a request to any server known so far; None before the first."""
        known = [endpoint.info for endpoint in self.all]  # other threads forget what is away
        return min((info.max_batch_rows for info in known if info), default=None)
