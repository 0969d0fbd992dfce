"""Why a process ended, in a few words: exit code, signal, or the kernel's lack of memory."""

import signal
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def how(exit_code: int) -> str:
    """An exit code as `subprocess` gives it, negative for a signal."""
    return f"exit code {exit_code}" if exit_code >= 0 else _name(-exit_code)


def how_status(wait_status: int) -> str:
    """A wait status as wait(2) gives it and proc(5) shows it."""
    return _name(wait_status & 0x7F) if wait_status & 0x7F else f"exit code {wait_status >> 8}"


class OutOfMemory:
    """Whether the kernel has killed a process of this cgroup for memory since the last look.

    Args:
        membership: file with the cgroups of this process, as in cgroups(7).
        cgroups: where they are mounted.
    """

    def __init__(
        self, membership: Path = Path("/proc/self/cgroup"), cgroups: Path = CGROUPS
    ) -> None:
        self._files = _counters(membership, cgroups)
        self._seen = self._kills()

    def happened(self) -> bool:
        """True once for any number of kills."""
        before, self._seen = self._seen, self._kills()
        return self._seen > before

    def explain(self, end: str) -> str:
        """How a process ended, and whether that was for memory."""
        return f"{end}: out of memory" if self.happened() else end

    def _kills(self) -> int:
        lines = (line for file in self._files for line in _lines(file))
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def _counters(membership: Path, cgroups: Path) -> list[Path]:
    """Of this process's cgroup, version 2 or 1; in a container its own is mounted at the top."""
    found = []
    for line in _lines(membership):
        _number, controllers, path = line.split(":", 2)
        if not controllers:
            found += [cgroups / path.lstrip("/") / "memory.events", cgroups / "memory.events"]
        elif "memory" in controllers.split(","):
            top = cgroups / "memory"
            found += [top / path.lstrip("/") / "memory.oom_control", top / "memory.oom_control"]
    return [file for file in dict.fromkeys(found) if file.is_file()][:1]


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


def _name(signum: int) -> str:
    try:
        return signal.Signals(signum).name
    except ValueError:  # a real-time signal
        return f"signal {signum}"
