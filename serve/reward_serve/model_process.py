"""Looks after the processes that Triton's Python backend runs the models in.

tritonserver 2.51 keeps to itself that one has died. A server whose model is loaded stays "ready"
and fails requests from then on; a server that is loading a version waits for it for ever.

The backend names its processes by version and model (`v2 gpt2_reward`), which they keep as zombies.
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
MOST_BYTES = 1 << 16  # of the list of a thread's children; a server has a few
COMM_BYTES = 15  # that the kernel keeps of a process's name
PATIENCE_S = 2.0  # far more than a server takes to wait for a child, on a busy machine too


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
        """Whether it has ended, and nothing has waited for it."""
        return self.state == "Z"

    @property
    def serves(self) -> tuple[str, int] | None:
        """The beginning of its model's name, and the version; None if it has not begun to load."""
        version, _, model = self.name.partition(" ")
        if not (version.startswith("v") and version[1:].isdecimal()):
            return None
        return model, int(version[1:])

    def may_serve(self, model: str, number: int) -> bool:
        """Whether it serves a version, or one that is called alike in so few bytes."""
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
    """Looks at a server's children from time to time.

    Args:
        server: its process id.
        patience_s: seconds that it has to wait for a child that has ended; ten times as many for
            one that has ended by itself with exit code 0, as those do in which Triton looks at a
            model before it loads it.
    """

    def __init__(self, server: int, patience_s: float = PATIENCE_S) -> None:
        self._server = server
        self._patience_s = patience_s
        self._known: list[int] = []
        self._looks = 0
        self._dead_since: dict[int, float] = {}
        self._told: set[int] = set()

    def newly_dead(self) -> list[Child]:
        """Children that have been dead for so long, and not waited for; each once.

        A model that is unloaded ends its process too, but then the server waits for it.
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
    """Whether a server's model processes all wait for work, at this look and the ones before.

    Processes that are stopped, or run, or wait for a processor are not idle.
    """

    def __init__(self, server: int) -> None:
        self._server = server
        self._ticks: dict[int, int] = {}
        self._looks = 0

    def lasts(self) -> int:
        """For how many looks in a row they have been idle, this one included."""
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
    """Each thread lists the processes that it has started, unless the kernel is built without.

    A server has a hundred threads, so the files are read with as few calls as there can be.
    """
    threads = f"{PROCESSES}/{parent}/task"
    if not os.path.exists(f"{threads}/{parent}/children"):  # noqa: PTH110  # as below
        yield from (int(path.name) for path in PROCESSES.glob("[0-9]*"))
        return
    for thread in os.listdir(threads):  # noqa: PTH208  # a path of each would double the cost
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
