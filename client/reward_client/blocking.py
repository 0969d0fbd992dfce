"""Several generators of steps on the caller's own thread: `Together` and `Hedged` without asyncio.

gRPC does the waiting; its threads only put outcomes into a queue. The caller's thread waits for
that queue and nothing else, so Ctrl-C ends a call at once and leaves no thread running.
"""

import heapq
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeAlias

from reward_client.steps import Ask, Hedged, Pause, Step, Steps, Together, Work

IN_FLIGHT = 4  # requests of one large call that are in flight at once

Done: TypeAlias = Callable[[Any, BaseException | None], None]
"""Called with the result, or the error, of what has ended."""

Stop: TypeAlias = Callable[[], object]
"""Stops what is running; its outcome is then ignored."""


class Server(Protocol):
    """A server that RPCs are sent to."""

    def start(self, step: Ask, answered: Callable[[Any], None]) -> Stop:
        """Begin an RPC; `answered` is called with its outcome, on any thread."""


class Run:
    """Does one step, and runs all the generators in it.

    Args:
        servers: the client's servers, indexed by `Ask.server`.
    """

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = servers
        self._answers: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._alarms: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def do(self, step: Together | Hedged) -> Any:  # noqa: ANN401  # see Steps
        """Do the step and return its result.

        Raises:
            Exception: what a part raised, or KeyboardInterrupt, once everything is stopped.
        """
        ended: list[tuple[Any, BaseException | None]] = []
        stop = self._start(step, lambda result, error: ended.append((result, error)))
        try:
            while not ended:
                self._wait()
        finally:
            stop()
        ((result, error),) = ended
        if error is not None:
            raise error
        return result

    def _wait(self) -> None:
        """Wait for the next answer or alarm, and resume what waits for it."""
        left_s = max(self._alarms[0][0] - time.monotonic(), 0.0) if self._alarms else None
        try:
            go_on = self._answers.get(timeout=left_s)
        except Empty:
            _, _, go_on = heapq.heappop(self._alarms)
        go_on()

    def _start(self, step: Step, done: Done) -> Stop:
        if isinstance(step, Ask):
            return self._ask(step, done)
        if isinstance(step, Pause):
            return self._after(step.seconds, lambda: done(None, None))
        if isinstance(step, Work):
            self._answers.put(partial(done, step.action(), None))
            return _nothing

        def later(result: object, error: BaseException | None) -> None:  # not while the step starts
            self._answers.put(partial(done, result, error))

        if isinstance(step, Together):
            return _All(step, self.task, later).stop
        return _Race(step, self.task, self._after, later).stop

    def task(self, steps: Steps[Any], done: Done) -> Stop:
        """Begin a generator."""
        return _Task(steps, self._start, done).stop

    def _ask(self, step: Ask, done: Done) -> Stop:
        answers = self._answers
        return self._servers[step.server].start(
            step, lambda outcome: answers.put(partial(done, outcome, None))
        )

    def _after(self, seconds: float, alarm: Callable[[], None]) -> Stop:
        alarms = [alarm]

        def ring() -> None:
            for one in alarms:
                one()

        heapq.heappush(self._alarms, (time.monotonic() + seconds, next(self._numbers), ring))
        return alarms.clear


class _Task:
    """Runs a generator, step by step."""

    def __init__(self, steps: Steps[Any], start: Callable[[Step, Done], Stop], done: Done) -> None:
        self._steps = steps
        self._start = start
        self._done = done
        self._is_over = False
        self._stop_step: Stop = _nothing
        self._go_on(partial(steps.send, None))

    def stop(self) -> None:
        """Stop the generator where it is."""
        if not self._is_over:
            self._is_over = True
            self._stop_step()
            self._steps.close()

    def _answer(self, result: object, error: BaseException | None) -> None:
        if not self._is_over:
            self._stop_step = _nothing
            resume = partial(self._steps.send, result)
            self._go_on(resume if error is None else partial(self._steps.throw, error))

    def _go_on(self, resume: Callable[[], Step]) -> None:
        while True:
            try:
                step = resume()
            except StopIteration as stop:
                return self._end(stop.value, None)
            except Exception as error:  # noqa: BLE001  # for what waits for this generator
                return self._end(None, error)
            try:
                self._stop_step = self._start(step, self._answer)
            except Exception as error:  # noqa: BLE001  # the generator's to handle
                resume = partial(self._steps.throw, error)
            else:
                return None

    def _end(self, result: object, error: BaseException | None) -> None:
        self._is_over = True
        self._done(result, error)


class _All:
    """Runs the parts of a `Together`, a few at a time."""

    def __init__(
        self, step: Together, task: Callable[[Steps[Any], Done], Stop], done: Done
    ) -> None:
        self._task = task
        self._done = done
        self._results: list[Any] = [None] * len(step.parts)
        self._n_left = len(step.parts)
        self._parts: Iterator[tuple[int, Steps[Any]]] = iter(enumerate(step.parts))
        self._stops: dict[int, Stop] = {}
        self._is_over = not step.parts
        if self._is_over:
            done([], None)
        for _ in range(IN_FLIGHT):
            self._next()

    def stop(self) -> None:
        """Stop the parts that are running, and begin no more."""
        self._is_over = True
        for stop in [*self._stops.values()]:
            stop()

    def _next(self) -> None:
        part = None if self._is_over else next(self._parts, None)
        if part is not None:
            index, steps = part
            self._stops[index] = _nothing  # it may end at once
            stop = self._task(steps, partial(self._ended, index))
            if index in self._stops:
                self._stops[index] = stop

    def _ended(self, index: int, result: object, error: BaseException | None) -> None:
        self._stops.pop(index, None)
        if self._is_over:
            return
        self._results[index] = result
        self._n_left -= 1
        if error is not None:
            self.stop()
            self._done(None, error)
        elif self._n_left:
            self._next()
        else:
            self._is_over = True
            self._done(self._results, None)


class _Race:
    """Runs the two generators of a `Hedged`."""

    def __init__(
        self,
        step: Hedged,
        task: Callable[[Steps[Any], Done], Stop],
        after: Callable[[float, Callable[[], None]], Stop],
        done: Done,
    ) -> None:
        self._step = step
        self._task = task
        self._after = after
        self._done = done
        self._is_over = False
        self._error: BaseException | None = None
        self._n_running = 1
        self._stops: list[Stop] = [after(step.after_s, self._look)]
        self._stops.append(task(step.first, self._first_ended))
        if self._is_over:
            self.stop()

    def stop(self) -> None:
        """Stop both."""
        self._is_over = True
        for stop in self._stops:
            stop()

    def _look(self) -> None:
        """Begin the second, if it is time."""
        second = self._step.second()
        if second is None:
            self._stops[0] = self._after(self._step.after_s, self._look)
            return
        self._n_running += 1
        self._stops.append(self._task(second, self._second_ended))

    def _first_ended(self, result: object, error: BaseException | None) -> None:
        self._error = error  # the one to raise if the second fails as well
        self._ended(result, error)

    def _second_ended(self, result: object, error: BaseException | None) -> None:
        self._ended(result, error)

    def _ended(self, result: object, error: BaseException | None) -> None:
        if self._is_over:
            return
        self._n_running -= 1
        if error is not None and self._n_running:
            return
        self.stop()
        self._done(result, None if error is None else self._error or error)


def _nothing() -> None:
    """Do nothing: there is nothing to stop."""
