"""Says in a few words why a process ended: its exit code, a signal, or a lack of memory."""

import signal
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def how(exit_code: int) -> str:
    """Describe an exit code as `subprocess` gives it: negative for a signal."""
    return f"exit code {exit_code}" if exit_code >= 0 else _name(-exit_code)


def how_status(wait_status: int) -> str:
    """Describe a wait status as wait(2) gives it and proc(5) shows it."""
    return _name(wait_status & 0x7F) if wait_status & 0x7F else f"exit code {wait_status >> 8}"


class OutOfMemory:
    """Tells whether the kernel has killed a process of this cgroup for lack of memory.

    Args:
        membership: file that lists the cgroups of this process, as in cgroups(7).
        cgroups: where cgroups are mounted.
    """

    def __init__(
        self, membership: Path = Path("/proc/self/cgroup"), cgroups: Path = CGROUPS
    ) -> None:
        self._files = _counters(membership, cgroups)
        self._seen = self._kills()

    def happened(self) -> bool:
        """Whether the kernel has killed any process since the previous call."""
        before, self._seen = self._seen, self._kills()
        return self._seen > before

    def explain(self, end: str) -> str:
        """Return `end`, how a process ended, with the note "out of memory" if it applies."""
        return f"{end}: out of memory" if self.happened() else end

    def _kills(self) -> int:
        lines = (line for file in self._files for line in _lines(file))
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def _counters(membership: Path, cgroups: Path) -> list[Path]:
    """The file that counts kills in this process's cgroup, version 2 or 1; [] if there is none.

    In a container, its own cgroup is mounted at the top.
    """
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
