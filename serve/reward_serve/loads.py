"""What Triton says in its log about the versions that it loads."""

import re
import time
from pathlib import Path

from reward_serve.log import reasons
from reward_serve.quarantine import Version

_LOAD = re.compile(
    r"""\bloading:\ (?P<begun>[\w.-]+):(?P<number>\d+)"$
    |successfully\ loaded\ '(?P<loaded>[\w.-]+)'
    |failed\ to\ load\ '(?P<failed>[\w.-]+)'\ version\ (?P<version>\d+)""",
    re.VERBOSE,
)


class Loads:
    """Follows a log, and knows which versions are being loaded and which could not be.

    Args:
        log: tritonserver's log, which may be growing.

    Attributes:
        begun: versions that Triton has announced and not finished loading, in that order, with the
            `time.monotonic` of the last load to end before. Triton announces all at once, and loads
            one after the other, so for the first this is when its turn came.
        failed: versions that it could not load and has not begun to load again, and why.
    """

    def __init__(self, log: Path) -> None:
        self.begun: dict[Version, float] = {}
        self.failed: dict[Version, str] = {}
        self._log = log
        self._read = 0

    def update(self) -> None:
        """Read the lines that have been written since the previous call."""
        size = self._log.stat().st_size
        if size < self._read:  # it was truncated
            self._read = 0
        if size == self._read:
            return
        with self._log.open("rb") as log:
            log.seek(self._read)
            whole = log.read().rpartition(b"\n")[0]
        self._read += len(whole) + bool(whole)
        for line in whole.decode("utf-8", "replace").splitlines():
            if (load := _LOAD.search(line)) is not None:
                self._note(load, line)

    def _note(self, load: "re.Match[str]", line: str) -> None:
        if load["begun"]:
            version = Version(load["begun"], int(load["number"]))
            self.begun.setdefault(version, time.monotonic())
            self.failed.pop(version, None)
            return
        if load["loaded"]:
            self.begun = {v: at for v, at in self.begun.items() if v.model != load["loaded"]}
        else:
            version = Version(load["failed"], int(load["version"]))
            self.begun.pop(version, None)
            self.failed[version] = (reasons(line) or (line,))[0]
        self.begun = dict.fromkeys(self.begun, time.monotonic())
