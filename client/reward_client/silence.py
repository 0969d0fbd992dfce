"""Telling a silent connection or server from an impatient caller."""

import time

MIN_SILENCE_S = 0.25
"""Seconds of waiting in vain that count as silence; in less, a healthy server may just be slow."""


class Silence:
    """How long calls have waited in vain since anything was last heard.

    Attributes:
        was_heard: whether anything has ever been heard.
        heard_at: `time.monotonic()` of the last answer; before the first, when this was made.
    """

    def __init__(self) -> None:
        self.was_heard = False
        self.heard_at = time.monotonic()
        self._waited_s = 0.0
        self._counted_to = 0.0

    def heard(self) -> None:
        """Note that an answer came, of whatever kind."""
        self.was_heard = True
        self.heard_at = time.monotonic()
        self._waited_s = 0.0

    def given_up(self, began: float) -> float:
        """Note that a call has stopped waiting. -> seconds waited in vain by all calls.

        Impatient calls add up: ten that each wait a tenth of a second in vain have waited one
        second. Time that several calls wait at once counts once.
        """
        now = time.monotonic()
        if self.heard_at > began:
            return 0.0
        self._waited_s += now - max(began, self._counted_to)
        self._counted_to = now
        return self._waited_s
