"""Watches the processes in which Triton's Python backend runs the models.

tritonserver 2.51 does not report that one has died. A server whose model is loaded stays "ready"
and fails requests from then on; a server that is loading a version waits for it forever.

The backend names its processes after version and model (`v2 gpt2_reward`); zombies keep the name.
"""

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reward_serve.ends import how_status

PROCESSES = Path("/proc")
IDLE = frozenset("SI")  # waiting for something to happen
RESCAN_LOOKS = 4
MOST_BYTES = 1 << 16  # read of the list of a thread's children; a server has a few
COMM_BYTES = 15  # as much as the kernel keeps of a process's name
PATIENCE_S = 2.0  # far longer than a server takes to reap a child, even on a busy machine


@dataclass(frozen=True, slots=True)
class Child:
    """A process that tritonserver has started.

    Attributes:
        name: `v2 gpt2_reward`, or the program's name until the backend has begun.
        state: one letter, as in proc(5).
        ticks: processor time that it has used, in the kernel's clock ticks.
        wait_status: how it ended, if it has.
    """

    name: str
    state: str
    ticks: int
    wait_status: int

    @property
    def is_dead(self) -> bool:
        """Whether it has ended and has not been reaped."""
        return self.state == "Z"

    @property
    def serves(self) -> tuple[str, int] | None:
        """The start of its model's name, and the version; None if it has not begun to load."""
        version, _, model = self.name.partition(" ")
        if not (version.startswith("v") and version[1:].isdecimal()):
            return None
        return model, int(version[1:])

    def may_serve(self, model: str, number: int) -> bool:
        """Whether it serves this version, or one whose name is the same in the bytes kept."""
        return self.name.encode() == f"v{number} {model}".encode()[:COMM_BYTES]

    @property
    def was_killed(self) -> bool:
        """Whether a signal ended it."""
        return os.WIFSIGNALED(self.wait_status)

    @property
    def end(self) -> str:
        """How it ended: a signal or an exit code."""
        return how_status(self.wait_status)


class Watch:
    """Finds children of a server that have died and that it does not reap.

    Args:
        server: the server's process id.
        patience_s: seconds that the server has to reap a child; ten times as long for a child
            with exit code 0, such as those in which Triton inspects a model before it loads it.
    """

    def __init__(self, server: int, patience_s: float = PATIENCE_S) -> None:
        self._server = server
        self._patience_s = patience_s
        self._known: list[int] = []
        self._looks = 0
        self._dead_since: dict[int, float] = {}
        self._told: set[int] = set()

    def newly_dead(self) -> list[Child]:
        """Children that have been dead and not reaped for that long; each is returned once.

        The process of a model that is unloaded ends too, but the server reaps it.
        """
        if self._looks % RESCAN_LOOKS == 0:  # a server has dozens of threads to ask
            self._known = [*children(self._server)]
        self._looks += 1
        seen, now = _look_at(self._known, self._server), time.monotonic()
        dead = {pid: child for pid, child in seen.items() if child.is_dead}
        since = {pid: self._dead_since.get(pid, now) for pid in dead}
        late = {
            pid: child
            for pid, child in dead.items()
            if pid in self._dead_since.keys() - self._told
            and now - since[pid] >= self._patience_s * (1 if child.wait_status else 10)
        }
        self._dead_since = since
        self._told |= late.keys()
        return [*late.values()]


class Idleness:
    """Counts for how many looks in a row all model processes of a server have waited for work.

    Processes that are stopped, running or waiting for a processor are not idle.
    """

    def __init__(self, server: int) -> None:
        self._server = server
        self._ticks: dict[int, int] = {}
        self._looks = 0

    def lasts(self) -> int:
        """Look again, and return for how many looks in a row the processes have been idle."""
        now = {pid: child for pid, child in children(self._server).items() if not child.is_dead}
        ticks = {pid: child.ticks for pid, child in now.items()}
        idle = ticks == self._ticks and all(child.state in IDLE for child in now.values())
        self._ticks = ticks
        self._looks = self._looks + 1 if idle else 0
        return self._looks


def children(parent: int) -> dict[int, Child]:
    """The processes that `parent` has started, by their ids."""
    return _look_at(_child_ids(parent), parent)


def _look_at(pids: Iterable[int], parent: int) -> dict[int, Child]:
    found = {}
    for pid in pids:
        try:
            stat = (PROCESSES / str(pid) / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
        name, _, rest = stat.partition("(")[2].rpartition(") ")
        fields = rest.split()
        if int(fields[1]) == parent:
            ticks = int(fields[11]) + int(fields[12])
            found[pid] = Child(name, fields[0], ticks, int(fields[49]))
    return found


def _child_ids(parent: int) -> Iterator[int]:
    """Ids of the processes that a server's threads list as their children.

    All ids if the kernel is built without these lists. A server has a hundred threads, so the files
    are read with as few calls as possible.
    """
    threads = f"{PROCESSES}/{parent}/task"
    if not os.path.exists(f"{threads}/{parent}/children"):  # noqa: PTH110  # as below
        yield from (int(path.name) for path in PROCESSES.glob("[0-9]*"))
        return
    for thread in os.listdir(threads):  # noqa: PTH208  # a Path for each would double the cost
        try:
            file = os.open(f"{threads}/{thread}/children", os.O_RDONLY)
        except (FileNotFoundError, ProcessLookupError):  # the thread has ended
            continue
        try:
            yield from map(int, os.read(file, MOST_BYTES).split())
        except ProcessLookupError:
            continue
        finally:
            os.close(file)
