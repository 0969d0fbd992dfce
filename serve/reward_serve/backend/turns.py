"""Executions that use all cores run one after the other, not side by side.

A model has two instances because Triton's batcher oversleeps with one (docs/operations.md). Two
executions with a thread per core each would share the cores and the caches: both end late, and
together they take longer than one after the other.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from reward_serve.backend.settings import Device, SessionSettings

Turn = Callable[[], AbstractContextManager[None]]


def turns(path: Path, device: Device, settings: SessionSettings) -> Turn:
    """What an instance executes in: a block in which only one of those that share `path` is.

    On a GPU, or with fewer threads than there are cores, nobody waits.

    Args:
        path: the lock's file, made if it is missing. The kernel frees the lock if its holder dies.
        device: where the instance runs.
        settings: those of its session.
    """
    n_cores = len(os.sched_getaffinity(0))
    if device.kind != "CPU" or 0 < settings.intra_op_threads < n_cores:
        return nullcontext
    file = os.open(path, os.O_CREAT | os.O_RDWR)  # open as long as the instance's process

    @contextlib.contextmanager
    def turn() -> Iterator[None]:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)

    return turn
