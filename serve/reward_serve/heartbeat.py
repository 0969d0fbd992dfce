"""Asks the server for golden rows at intervals, so that what hangs, lies or is shut is noticed.

A stopped or swapped model process, a dead one, a graph that computes something else on this
machine, and a port that takes no connection any more all look healthy to Triton.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from reward_contract import CONTRACT
from reward_contract.facts import Golden
from reward_serve.control import Control, RefusedError
from reward_serve.health import Health

N_ROWS = 2  # the shortest; of unlike lengths, so that two instances are asked at once
FULL = "maximum queue size"


@dataclass(frozen=True, slots=True)
class Pulse:
    """How often to ask, and when to lose patience.

    Attributes:
        every_s: seconds from one heartbeat to the next; 0 for none.
        timeout_s: seconds within which a heartbeat has to be answered.
        misses: heartbeats in a row after which the server is started again.
    """

    every_s: float = 5.0
    timeout_s: float = 10.0
    misses: int = 3


class Heartbeat:
    """A thread that asks, and tells `Health` what came back. A context manager.

    Args:
        control: the server to ask.
        golden_of: the golden rows of a version, or of the newest for None; None if it has none.
        front_door: whether the gRPC port takes a new connection.
        pulse: how often.
        health: is told.
    """

    def __init__(
        self,
        control: Control,
        golden_of: Callable[[int | None], Golden | None],
        front_door: Callable[[], bool],
        pulse: Pulse,
        health: Health,
    ) -> None:
        self._control = control
        self._golden_of = golden_of
        self._front_door = front_door
        self._pulse = pulse
        self._health = health
        self._stop = threading.Event()
        self._executed = -1
        self._pool = ThreadPoolExecutor(N_ROWS, "heartbeat")
        self._thread = threading.Thread(target=self._run, daemon=True, name="heartbeat")

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop.set()
        self._thread.join()
        self._pool.shutdown()

    def _run(self) -> None:
        while not self._stop.wait(self._pulse.every_s):
            self.beat()

    def beat(self) -> None:
        """Ask once, and tell."""
        golden = self._golden_of(None)
        if golden is None:  # not exported by us, or being exchanged
            return
        began = time.monotonic()
        rows = shortest(golden)
        answers = [self._pool.submit(self._ask, row) for row in rows]
        wait(answers, self._pulse.timeout_s + 1)
        found = [self._problem(row, answer) for row, answer in zip(rows, answers, strict=True)]
        problems = [problem for problem in found if problem is not None]
        if not self._front_door():
            problems.append(("silent", "the gRPC port takes no new connection"))
        at_work = self._is_at_work()
        if not problems:
            self._health.mark_alive(time.monotonic() - began)
        elif at_work and all(kind == "busy" for kind, _ in problems):
            self._health.mark_alive(None)
        else:
            self._health.mark_miss(*_named(problems[0]))

    def _ask(self, row: tuple[int, ...]) -> tuple[float, int]:
        # the pad alone is the empty text
        sent = row or (CONTRACT.pad_token_id,)
        return self._control.reward(sent, timeout_s=self._pulse.timeout_s)

    def _problem(
        self, row: tuple[int, ...], answer: "Future[tuple[float, int]]"
    ) -> tuple[str, str] | None:
        """What is wrong with an answer: its kind, and a line; None if nothing is."""
        try:
            reward, version = answer.result(0)
        except RefusedError as error:
            late = FULL in str(error) or "timeout" in str(error).lower()
            return ("busy" if late else "refused", f"a golden row was refused: {error}")
        except (OSError, ValueError, KeyError, TimeoutError) as error:
            why = type(error).__name__ if isinstance(error, TimeoutError) else error
            return "busy", f"a golden row was not answered in {self._pulse.timeout_s:g} s: {why}"
        golden = self._golden_of(version)
        if golden is None or row not in golden.rows:
            return None
        index = golden.rows.index(row)
        if golden.is_close(index, reward):
            return None
        wanted = f"{golden.rewards[index]:.6g}, and {golden.tolerance:.2g} may differ"
        detail = f"golden row {index} of version {version} got {reward:.6g}; PyTorch's is {wanted}"
        return "wrong", detail

    def _is_at_work(self) -> bool:
        """Whether executions have ended since the heartbeat before."""
        before = self._executed
        try:
            self._executed = self._control.n_executions()
        except (OSError, RefusedError, ValueError, KeyError):
            return False
        return before < self._executed


def shortest(golden: Golden) -> Sequence[tuple[int, ...]]:
    """The rows that a heartbeat asks for."""
    return sorted(golden.rows, key=len)[:N_ROWS]


def _named(problem: tuple[str, str]) -> tuple[str, str]:
    kind, detail = problem
    return ("silent" if kind == "busy" else kind, detail)
