"""What a client has done so far, for the metrics of the service that uses it."""

import threading
from dataclasses import dataclass, replace

from reward_text import Encoded


@dataclass(frozen=True, slots=True)
class Counts:
    """Totals since the client was made.

    Attributes:
        candidates: rows that were answered.
        tokens: their real tokens, padding not counted.
        truncated: rows among them that lost their beginning. How many tokens they lost is
            not known: what the model cannot see is not tokenised.
        failures: RPCs that ended in an error.
        retries: attempts after the first.
    """

    candidates: int = 0
    tokens: int = 0
    truncated: int = 0
    failures: int = 0
    retries: int = 0


class Counters:
    """`Counts` that grow. Safe across threads."""

    def __init__(self) -> None:
        self._counts = Counts()
        self._lock = threading.Lock()

    @property
    def now(self) -> Counts:
        """The totals at this moment."""
        return self._counts

    def scored(self, encoded: Encoded) -> None:
        """Count rows that were answered."""
        self._add(
            candidates=len(encoded.ids), tokens=encoded.n_tokens, truncated=encoded.n_truncated
        )

    def failed(self) -> None:
        """Count an RPC that ended in an error."""
        self._add(failures=1)

    def retried(self) -> None:
        """Count another attempt."""
        self._add(retries=1)

    def _add(self, **more: int) -> None:
        with self._lock:
            old = self._counts
            self._counts = replace(
                old, **{name: getattr(old, name) + n for name, n in more.items()}
            )
