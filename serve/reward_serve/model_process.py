"""Notices that a model's process has died, which tritonserver 2.51 keeps to itself.

Triton's Python backend runs each model instance in a process of its own and does not start a
dead one again: the server stays "ready", and fails every request from then on.
"""

from pathlib import Path

PROCESSES = Path("/proc")


class Watch:
    """Looks at a server's children from time to time."""

    def __init__(self, server: int) -> None:
        self._server = server
        self._seen_dead: set[int] = set()

    def finds_dead(self) -> bool:
        """Whether a child was dead, and not waited for, at this look and at the one before.

        A model that is unloaded ends its process too, but then the server waits for it.
        """
        dead = {pid for pid, state in children(self._server).items() if state == "Z"}
        stays_dead = bool(dead & self._seen_dead)
        self._seen_dead = dead
        return stays_dead


def children(parent: int) -> dict[int, str]:
    """The processes that `parent` has started, and the state of each, as in proc(5)."""
    found = {}
    for stat in PROCESSES.glob("[0-9]*/stat"):
        try:
            state, of = stat.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
        if int(of) == parent:
            found[int(stat.parent.name)] = state
    return found
