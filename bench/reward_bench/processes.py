"""Processor time and memory of processes, as Linux reports them."""

import os
from collections.abc import Sequence
from pathlib import Path

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids: Sequence[int]) -> float:
    """Processor time that these processes have used, in user and kernel mode."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS_A_SECOND


def with_children(pid: int) -> list[int]:
    """A process and those that its main thread has started; without them once it has ended."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return [pid]
    return [pid, *map(int, children.split())]


def resident_mb(pids: Sequence[int]) -> float:
    """Memory that these processes hold, shared pages counted in each; 0 for any that has ended."""
    return sum(map(_resident_mb, pids))


def _resident_mb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    found = status.partition("VmRSS:")[2].split()
    return int(found[0]) / 1024 if found else 0.0
