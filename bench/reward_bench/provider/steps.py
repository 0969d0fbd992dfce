"""Runs steps one after another, each in a process of its own, within a time limit for them all.

A step may fail, crash or hang without harm to the others; the outcome of each is noted.
"""

import json
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reward_bench.suite import say
from reward_serve.ends import how

CLEAN_UP_S = 10.0  # between SIGTERM and SIGKILL
LONGEST_ERROR = 300  # characters

Outcome = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """A part of a suite.

    Attributes:
        name: in the report.
        run: gives figures that JSON can hold; a function that a new process can import.
        share: of the time limit, kept for this step however long the earlier ones take.
    """

    name: str
    run: Callable[..., object]
    share: float


def in_time(
    steps: Sequence[Step], argument: object, folder: Path, limit_s: float
) -> dict[str, Outcome]:
    """Run all steps; time that one leaves over is for those after it.

    Args:
        steps: in their order; their shares sum up to 1 at most.
        argument: given to each.
        folder: for their answers.
        limit_s: for all of them. A step that has used its time is stopped.

    Returns:
        For each step by name `took_s`, and either `found` (its figures) or `error`.
    """
    end, later, outcomes = time.monotonic() + limit_s, 1.0, {}
    for step in steps:
        later -= step.share
        start = time.monotonic()
        allowed_s = max(0.0, end - start - later * limit_s)
        say(f"-- {step.name}, for {allowed_s:.0f} s at most")
        outcome = in_own_process(step.run, (argument,), folder / f"{step.name}.json", allowed_s)
        outcomes[step.name] = {"took_s": round(time.monotonic() - start, 1), **outcome}
        say(f"   {outcome.get('error', 'done')}")
    return outcomes


def in_own_process(
    function: Callable[..., object], arguments: tuple[object, ...], file: Path, limit_s: float
) -> Outcome:
    """What a function gives, as `found`, or why it gave nothing, as `error`.

    Args:
        function: one that a new process can import.
        arguments: that can be pickled.
        file: for the answer.
        limit_s: then it is told to end, and killed if it does not.
    """
    context = multiprocessing.get_context("forkserver")
    # imported once, in a process that computes nothing; importing torch takes seconds each time
    context.set_forkserver_preload([function.__module__])
    process = context.Process(target=_answer, args=(function, arguments, file))
    process.start()
    try:
        process.join(limit_s)
        overran = process.is_alive()
    finally:
        _end(process)
    if file.exists():
        answer: Outcome = json.loads(file.read_text())
        return answer
    if overran:
        return {"error": f"stopped after {limit_s:.0f} s, all the time that it had"}
    return {"error": f"its process ended with {how(process.exitcode or 0)}"}


def _end(process: multiprocessing.process.BaseProcess) -> None:
    process.terminate()
    process.join(CLEAN_UP_S)
    process.kill()
    process.join()


def _answer(function: Callable[..., object], arguments: tuple[object, ...], file: Path) -> None:
    # so that servers and folders that the step has made end with it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        answer = {"found": function(*arguments)}
    except Exception as error:  # noqa: BLE001 whatever it is, it is the step's result
        answer = {"error": short(error)}
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(answer))
    partial.rename(file)


def short(error: Exception) -> str:
    """The error's kind and the beginning of its message."""
    return f"{type(error).__name__}: {error}"[:LONGEST_ERROR]
