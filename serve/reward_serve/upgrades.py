"""Watches a running server load versions: whatever fails, the old version continues to serve.

tritonserver 2.51 waits forever for some processes that die while they load, and loads nothing
else meanwhile; the previous version continues to answer. So such a version is put away, and the
server is restarted only when there is something else to load.
"""

import contextlib
import os
import signal
import time

from reward_serve.control import Control, RefusedError
from reward_serve.ends import OutOfMemory
from reward_serve.errors import EndedError, ModelProcessError, UpgradeError
from reward_serve.loads import Loads
from reward_serve.log import Tell
from reward_serve.model_process import Child, Watch, children
from reward_serve.models import Models
from reward_serve.quarantine import Version

End = tuple[type[EndedError], str]
"""Why a server has to be ended: the type of error to raise, and its message."""


class Upgrades:
    """Puts away the versions that a server cannot load.

    Args:
        server: the server's process id.
        loads: the versions that it loads, from its log.
        models: the versions that it is shown.
        control: asks it for the state of a version.
        limit_s: seconds within which a version has to be loaded.
        memory: tells whether the kernel has killed a process for lack of memory.
        tell: told of versions that could not be loaded, one line per call.
    """

    def __init__(  # noqa: PLR0913  # the parts of one server, each used here
        self,
        server: int,
        *,
        loads: Loads,
        models: Models,
        control: Control,
        limit_s: float,
        memory: OutOfMemory,
        tell: Tell,
    ) -> None:
        self._server = server
        self._watch = Watch(server)
        self._loads = loads
        self._models = models
        self._control = control
        self._limit_s = limit_s
        self._memory = memory
        self._tell = tell
        self._given_up: set[Version] = set()
        self._told: dict[Version, str] = {}

    def look(self) -> End | None:
        """Put away the versions that could not be loaded since the previous call.

        Returns:
            why the server has to be ended; None if it can continue.
        """
        self._loads.update()
        self._given_up &= self._loads.begun.keys()
        for child in self._watch.newly_dead():
            if (end := self._bury(child)) is not None:
                return end
        self._tell_of_failures()
        self._give_up_a_late_one()
        if self._given_up and self._models.changed.is_set():
            return (
                UpgradeError,
                "versions changed while Triton was waiting for one that cannot be loaded",
            )
        return None

    def _bury(self, child: Child) -> End | None:
        """Handle a model's process that has died: give its version up if it was being loaded."""
        version = self._version_of(child)
        end = self._memory.explain(child.end)
        if version is not None and version in self._given_up:
            return None
        state = "READY" if version is None else self._state_of(version)
        if state == "LOADING" and version is not None:
            if self._give_up(version, f"its process died while loading ({end})"):
                return None
        elif state != "READY":
            return None
        return ModelProcessError, f"the process of a model has died ({end})"

    def _give_up_a_late_one(self) -> None:
        """Give up on a version that takes too long to load, and kill its processes.

        Only the first one can be late: the others wait for it.
        """
        version, since = next(iter(self._loads.begun.items()), (None, 0.0))
        if version is None or time.monotonic() - since <= self._limit_s:
            return
        reason = f"it was still loading after {self._limit_s:g} s"
        if version in self._given_up or self._give_up(version, reason):
            self._kill_processes_of(version)  # each time: Triton may start another

    def _give_up(self, version: Version, reason: str) -> bool:
        """Put a version away; False if there is no older one to serve instead."""
        if not self._models.put_away([version], reason):
            return False
        self._given_up.add(version)
        self._models.changed.clear()
        return True

    def _kill_processes_of(self, version: Version) -> None:
        alone = [*self._loads.begun] == [version]  # then a process without a name belongs to it
        for pid, child in children(self._server).items():
            named = child.serves is not None or alone
            if named and self._version_of(child) == version and not child.is_dead:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _tell_of_failures(self) -> None:
        for version, reason in self._loads.failed.items():
            if self._told.get(version) != reason:
                self._tell(f"{version} could not be loaded: {reason}")
        self._told = dict(self._loads.failed)

    def _version_of(self, child: Child) -> Version | None:
        """The version that a process's short name stands for; the first one loading if unnamed.

        If several have the same short name, one that is serving: losing that is the worst case.
        """
        loading = [*self._loads.begun]
        if child.serves is None:
            return loading[0] if loading else None
        known = dict.fromkeys((*self._models.shown, *loading, *self._given_up))
        alike = [version for version in known if child.may_serve(version.model, version.number)]
        if len(alike) > 1:
            alike.sort(key=lambda version: self._state_of(version) != "READY")
        return alike[0] if alike else None

    def _state_of(self, version: Version) -> str:
        try:
            return self._control.state(version.model, version.number)
        except (OSError, RefusedError, ValueError):
            return "READY"  # the worse case
