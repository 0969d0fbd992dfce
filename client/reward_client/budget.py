"""How many second attempts a client may make, so that retries never become the load."""

import threading

FIRST = 10.0  # attempts to spend before any request was answered
PER_ANSWER = 0.2  # added for each answer
MOST = 1000.0  # the most that is saved up


class RetryBudget:
    """Attempts that may be spent on servers that answer, but do not serve. Safe across threads.

    Attempts at servers that could not be reached are not charged: they put no load on a server.
    """

    def __init__(self) -> None:
        self._left = FIRST
        self._lock = threading.Lock()

    def answered(self) -> None:
        """Count a request that was served."""
        if self._left < MOST:
            with self._lock:
                self._left = min(self._left + PER_ANSWER, MOST)

    def take(self) -> bool:
        """Spend one attempt, if one is left."""
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True
