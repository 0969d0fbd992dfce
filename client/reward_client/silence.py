"""Telling a silent connection or server from a caller that does not wait."""

import time

MIN_SILENCE_S = 0.25
"""Seconds of waiting in vain that mean something; below, a healthy server may just be slower."""


class Silence:
    """How long calls have waited in vain since anything was last heard.

    Attributes:
        was_heard: whether anything has ever been heard.
        heard_at: `time.monotonic()` of the last word; when this was made, before the first.
    """

    def __init__(self) -> None:
        self.was_heard = False
        self.heard_at = time.monotonic()
        self._waited_s = 0.0
        self._counted_to = 0.0

    def heard(self) -> None:
        """An answer came, of whatever kind."""
        self.was_heard = True
        self.heard_at = time.monotonic()
        self._waited_s = 0.0

    def given_up(self, began: float) -> float:
        """A call that began then has stopped waiting. -> seconds waited in vain by all calls.

        Impatient calls add up: ten that each wait a tenth of a second in vain have waited one.
        What they waited at the same time counts once.
        """
        now = time.monotonic()
        if self.heard_at > began:
            return 0.0
        self._waited_s += now - max(began, self._counted_to)
        self._counted_to = now
        return self._waited_s
