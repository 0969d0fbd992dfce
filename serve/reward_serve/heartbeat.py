"""Has the server score golden rows at intervals, to notice when it hangs, is wrong or unreachable.

A model process that is stopped, swapped out or dead, a graph that computes something else on this
machine, and a port that no longer accepts connections all look healthy to Triton.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from reward_contract import CONTRACT
from reward_contract.facts import Golden
from reward_serve.control import Control, RefusedError
from reward_serve.health import Health

N_ROWS = 2  # the shortest; of different lengths, so that two instances are used at once
MOST_ASKED = 32  # rows in flight at once, over all models
FULL = "maximum queue size"

Answer: TypeAlias = tuple[float, int]
"""A reward, and the version that gave it."""

Problem: TypeAlias = tuple[str, str]
"""What is wrong: its kind (a reason in `Health.failures`, or `busy`), and a message."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """How often to have golden rows scored, and when to restart the server.

    Attributes:
        every_s: seconds from one heartbeat to the next; 0 for none.
        timeout_s: seconds within which a heartbeat has to be answered.
        misses: failed heartbeats among the last `health.N_RECENT` at which the server is restarted.
            They need not be in a row: the other of two instances may answer in between.
    """

    every_s: float = 5.0
    timeout_s: float = 10.0
    misses: int = 3


class Goldens(Protocol):
    """What a heartbeat has to know about the models that are served."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the models."""

    @property
    def withheld(self) -> Sequence[str]:
        """Models that should be served, and have no version that is fit for it."""

    def golden(self, model: str, number: int | None = None) -> Golden | None:
        """The golden rows of a version, by default of the newest; None if it has none."""


class Heartbeat:
    """A thread that checks each model, and records in `Health` what it found. A context manager.

    Args:
        control: the server to check.
        models: the models that it serves.
        front_door: whether the gRPC port accepts a new connection.
        pulse: how often to check.
        health: where to record the results.
    """

    def __init__(
        self,
        control: Control,
        models: Goldens,
        front_door: Callable[[], bool],
        pulse: Pulse,
        health: Health,
    ) -> None:
        self._control = control
        self._models = models
        self._front_door = front_door
        self._pulse = pulse
        self._health = health
        self._loaded = {*models.names}
        self._stop = threading.Event()
        self._executed: dict[str, int] = {}
        self._pool = ThreadPoolExecutor(MOST_ASKED, "heartbeat")
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
        """Check every model that Triton has loaded once, and record the results."""
        names, withheld = self._models.names, self._models.withheld
        # a model that is withheld, and later published again, has yet to be loaded then
        self._loaded = {name for name in names if self._has_loaded(name)}
        found = {name: self._models.golden(name) for name in names if name in self._loaded}
        rows = {name: shortest(golden) for name, golden in found.items() if golden is not None}
        away = dict.fromkeys(sorted({*names, *withheld} - self._loaded), False)
        if not rows:  # not exported by us, or being exchanged
            self._health.note_models(self._health.models | away)
            return
        began = time.monotonic()
        answers = {name: [self._ask(name, row) for row in some] for name, some in rows.items()}
        wait([one for some in answers.values() for one in some], self._pulse.timeout_s + 1)
        verdicts = {name: self._verdict(name, rows[name], answers[name]) for name in rows}
        well = {name: _is_well(one) for name, one in verdicts.items()}
        self._health.note_models({**away, **well})
        problems = [one for one in verdicts.values() if one is not None]
        if not self._front_door():
            problems.append(("silent", "the gRPC port does not accept a new connection"))
        serious = [one for one in problems if not _is_well(one)]
        if serious:
            self._health.mark_miss(*serious[0])
        else:
            self._health.mark_alive(None if problems else time.monotonic() - began)

    def _has_loaded(self, model: str) -> bool:
        """Whether a model was there at the start, or has been ready since it was shown.

        One that was published a moment ago, or cannot be loaded, is not a reason to restart others.
        """
        return model in self._loaded or self._control.is_ready(f"models/{model}/ready")

    def _ask(self, model: str, row: tuple[int, ...]) -> "Future[Answer]":
        # a single pad token is the empty text
        sent = row or (CONTRACT.pad_token_id,)
        return self._pool.submit(self._control.reward, model, sent, timeout_s=self._pulse.timeout_s)

    def _verdict(
        self, model: str, rows: Sequence[tuple[int, ...]], answers: "Sequence[Future[Answer]]"
    ) -> Problem | None:
        """What is wrong with a model; `busy` if it answered late and was at work meanwhile."""
        found = [self._problem(model, *pair) for pair in zip(rows, answers, strict=True)]
        problems = [problem for problem in found if problem is not None]
        at_work = self._is_at_work(model)  # even if all is well: it compares with the last call
        if not problems:
            return None
        if at_work and all(kind == "busy" for kind, _ in problems):
            return problems[0]
        kind, detail = problems[0]
        return ("silent" if kind == "busy" else kind), detail

    def _problem(
        self, model: str, row: tuple[int, ...], answer: "Future[Answer]"
    ) -> Problem | None:
        """What is wrong with an answer; None if nothing is."""
        try:
            reward, version = answer.result(0)
        except RefusedError as error:
            late = FULL in str(error) or "timeout" in str(error).lower()
            return ("busy" if late else "refused", f"a golden row of {model} was refused: {error}")
        except (OSError, ValueError, KeyError, TimeoutError) as error:
            why = type(error).__name__ if isinstance(error, TimeoutError) else error
            late_s = self._pulse.timeout_s
            return "busy", f"a golden row of {model} was not answered in {late_s:g} s: {why}"
        golden = self._models.golden(model, version)
        if golden is None or row not in golden.rows:
            return None
        index = golden.rows.index(row)
        if golden.is_close(index, reward):
            return None
        wanted = f"{golden.rewards[index]:.6g}, with a tolerance of {golden.tolerance:.2g}"
        where = f"golden row {index} of {model} version {version}"
        return "wrong", f"{where} got {reward:.6g}; PyTorch gives {wanted}"

    def _is_at_work(self, model: str) -> bool:
        """Whether executions of a model have ended since the previous heartbeat."""
        before = self._executed.get(model, -1)
        try:
            self._executed[model] = self._control.n_executions(model)
        except (OSError, RefusedError, ValueError, KeyError):
            return False
        return before < self._executed[model]


def shortest(golden: Golden) -> Sequence[tuple[int, ...]]:
    """The rows that a heartbeat asks for: the shortest ones."""
    return sorted(golden.rows, key=len)[:N_ROWS]


def _is_well(problem: Problem | None) -> bool:
    return problem is None or problem[0] == "busy"
