"""Waits for a tritonserver to become ready."""

import http.client
import time
from collections.abc import Callable
from typing import NamedTuple

from reward_serve.control import OPENER
from reward_serve.ends import OutOfMemory, how
from reward_serve.model_process import Watch
from reward_serve.process import Process

POLL_S = 0.1


class Failed(NamedTuple):
    """Why a server did not become ready.

    Attributes:
        reason: a line.
        by_signal: whether a signal ended it, or a model's process.
    """

    reason: str
    by_signal: bool


def why_not_ready(
    process: Process, answers: Callable[[], bool], memory: OutOfMemory, timeout_s: float
) -> Failed | None:
    """Wait until a server answers.

    Args:
        process: the server's process.
        answers: whether the server answers.
        memory: tells whether the kernel has killed a process for lack of memory.
        timeout_s: how long to wait.

    Returns:
        why the server will not answer; None if it answers.
    """
    deadline = time.monotonic() + timeout_s
    watch = Watch(process.pid)
    while not answers():
        if (code := process.exit_code()) is not None:
            end = memory.explain(how(code))
            return Failed(f"tritonserver ended while starting ({end})", code < 0)
        for child in watch.newly_dead():  # Triton would wait for it forever
            end = memory.explain(child.end)
            return Failed(f"a model's process died while loading ({end})", child.was_killed)
        if time.monotonic() > deadline:
            return Failed(f"tritonserver was not ready within {timeout_s:g} s", by_signal=False)
        time.sleep(POLL_S)
    return None


def is_there(url: str) -> bool:
    """Whether a page on this machine can be read."""
    try:
        with OPENER.open(url, timeout=2.0):
            return True
    except (OSError, http.client.HTTPException):
        return False
