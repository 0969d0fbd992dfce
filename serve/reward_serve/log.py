"""Finds the reason for a failure in tritonserver's log, and follows the log while it grows."""

import contextlib
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeAlias

Tell: TypeAlias = Callable[[str], None]
"""A function that is told what happens, one line per call."""

# severity, date, time, process, place] "message": E1123 07:01:02.345678 123 server.cc:251] "..."
# or, from a configuration's parser: [libprotobuf ERROR PATH:123] ...
# or, from the command line: PATH/tritonserver: unrecognized option '--x'
_LINE = re.compile(
    r"^(?:[EF]\d{4} [\d:.]+ +\d+ (?P<place>[\w.]+):\d+\]|\[libprotobuf ERROR \S+\]"
    r'|\S*tritonserver:) *"?(?P<message>.*?)"?$'
)
_REPEATED = "ERROR: Failed to create instance: "  # by a line that says more
# harmless, and logged at every start without a GPU
_NOISE = "CudaDriverHelper has not been"
_NOISY_PLACES = frozenset(
    {"pinned_memory_manager.cc", "cuda_memory_manager.cc", "metrics.cc", "chttp2_server.cc"}
)
_DEAD = re.compile(r"Stub process '[^']*' is not healthy")
_TRACEBACK = r"\n\nAt:"  # Triton logs a Python error's traceback, escaped, on the error's own line
_NO_REASON = re.compile(r"[IW]\d{4} |[+|]")  # information, and the borders of tables
MOST = 5
POLL_S = 0.1
MAX_LOG_BYTES = 64 << 20
BLOCK_BYTES = 1 << 20
KEPT = "gpt2-reward-"  # what the names of kept logs begin with
MOST_KEPT = 10


def reasons(log: str) -> tuple[str, ...]:
    """The error lines of a log without their prefixes, each once, at most five.

    If there are none, the last lines that are not the server's own information lines: whatever
    died may have printed something.
    """
    lines = [line for line in log.splitlines() if not _is_noise(line)]
    told = dict.fromkeys(
        match["message"].partition(_TRACEBACK)[0].strip()
        for match in map(_LINE.match, lines)
        if match and not match["message"].startswith(_REPEATED)
    )
    if told:
        return tuple(told)[:MOST]
    rest = [line.strip() for line in lines if not _NO_REASON.match(line)]
    return tuple(line for line in rest if line)[-MOST:]


def tells_of_a_dead_process(log: str) -> bool:
    """Whether Triton noticed that a model's process had died, and failed what waited for it."""
    return _DEAD.search(log) is not None


def bound(log: Path) -> None:
    """Empty a log that exceeds `MAX_LOG_BYTES`, and keep its last `MAX_LOG_BYTES / 2` as `.1`."""
    if log.stat().st_size <= MAX_LOG_BYTES:
        return
    old = log.with_name(f"{log.name}.1")
    with log.open("rb") as source, old.open("wb") as kept:
        source.seek(-MAX_LOG_BYTES // 2, os.SEEK_END)
        while block := source.read(BLOCK_BYTES):
            kept.write(block)
    os.truncate(log, 0)


def keep(log: Path) -> Path:
    """Copy a log to where it outlives its server, and remove the oldest of these copies.

    A server that fails again and again, for days, must not fill the disk.
    """
    with tempfile.NamedTemporaryFile(prefix=KEPT, suffix=".log", delete=False) as new:
        kept = Path(new.name)
    shutil.copyfile(log, kept)
    ages = {}
    for file in kept.parent.glob(f"{KEPT}*.log"):
        with contextlib.suppress(FileNotFoundError):  # another server removes them too
            ages[file] = file.stat().st_mtime_ns
    for old in sorted(ages, key=ages.__getitem__)[:-MOST_KEPT]:
        with contextlib.suppress(PermissionError):  # another user's
            old.unlink(missing_ok=True)
    return kept


class Sink(Protocol):
    """What a log can be copied to, such as a binary file."""

    def write(self, content: bytes, /) -> object:
        """Take a piece of the log."""

    def flush(self) -> None:
        """Write out the pieces taken so far."""


def follow(log: Path, to: Sink, ended: threading.Event) -> None:
    """Copy a log to `to` while it grows; once `ended` is set, copy the rest and return."""
    with log.open("rb") as source:
        last = False
        while not last:
            last = ended.wait(POLL_S)
            if log.stat().st_size < source.tell():  # it was truncated
                source.seek(0)
            to.write(source.read())
            to.flush()


def _is_noise(line: str) -> bool:
    match = _LINE.match(line)
    return match is not None and (
        match["place"] in _NOISY_PLACES or match["message"].startswith(_NOISE)
    )
