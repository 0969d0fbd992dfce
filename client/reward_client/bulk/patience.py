"""Waiting for a server that restarts or has too much to do."""

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from reward_client.errors import (
    DeadlineError,
    InternalError,
    ModelNotReadyError,
    OverloadedError,
    RewardError,
    ServerError,
    UnavailableError,
)

T = TypeVar("T")

PASSING = (UnavailableError, ModelNotReadyError, OverloadedError, DeadlineError, InternalError)
"""Errors that may pass: a server that is killed while it works may answer any of these."""

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 10.0


class Patience:
    """Asks again, after longer and longer pauses, as long as some call was answered recently.

    Args:
        seconds: how long to go without any answer before giving up.
        max_in_flight: maximum number of calls in flight.
        say: called once, with a sentence, when waiting begins.
    """

    def __init__(self, seconds: float, max_in_flight: int, say: Callable[[str], None]) -> None:
        self._seconds = seconds
        self._say = say
        self._window = Window(max_in_flight)
        self._answered_at = time.monotonic()
        self._is_waiting = False

    async def until_answered(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Call `ask` until it answers, and return the answer.

        Raises:
            ServerError: there was no answer for too long.
            RewardError: an error that waiting does not fix.
        """
        for attempt in itertools.count(1):
            try:
                async with self._window.place():
                    answer = await ask()
            except PASSING as error:
                await self._pause(attempt, error)
            except RewardError:
                self._was_answered()
                raise
            else:
                self._was_answered()
                return answer
        raise AssertionError("the loop above ends by itself")

    async def _pause(self, attempt: int, error: ServerError) -> None:
        left_s = self._answered_at + self._seconds - time.monotonic()
        if left_s <= 0:
            raise error
        if isinstance(error, OverloadedError | DeadlineError):
            self._window.shrink()
        if not self._is_waiting:
            self._say(f"waiting for the server, {left_s:.0f} s at most: {error}")
        self._is_waiting = True
        await asyncio.sleep(min(pause_s(attempt), left_s))

    def _was_answered(self) -> None:
        self._answered_at = time.monotonic()
        self._is_waiting = False
        self._window.grow()


class Window:
    """How many calls may be in flight: halved when they are too many, then slowly increased.

    Args:
        most: the largest size, and the first.

    Attributes:
        size: how many calls may be in flight now, from 1 to `most`.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.size = float(most)
        self._n_taken = 0
        self._freed = asyncio.Condition()

    def grow(self) -> None:
        """Grow by one per `size` answers."""
        self.size = min(self.size + 1 / self.size, self._most)

    def shrink(self) -> None:
        """Shrink to half, but not below one."""
        self.size = max(self.size / 2, 1)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place for one call, and hold it; first come, first served."""
        async with self._freed:
            await self._freed.wait_for(lambda: self._n_taken < int(self.size))
            self._n_taken += 1
        try:
            yield
        finally:
            self._n_taken -= 1
            async with self._freed:
                self._freed.notify_all()


def pause_s(attempt: int) -> float:
    """Seconds to wait after an attempt (from 1): at random, half to all of a growing limit."""
    longest = min(FIRST_PAUSE_S * 2.0 ** min(attempt - 1, 30), LONGEST_PAUSE_S)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311  # no secret depends on it
