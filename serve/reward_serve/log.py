"""Finds the reason in a tritonserver's log, and follows it while it grows."""

import re
import threading
from pathlib import Path
from typing import BinaryIO

# severity, date, time, process, place] "message": E1123 07:01:02.345678 123 server.cc:251] "..."
# or, of a configuration's parser: [libprotobuf ERROR PATH:123] ...
# or, of the command line: PATH/tritonserver: unrecognized option '--x'
_LINE = re.compile(
    r"^(?:[EF]\d{4} [\d:.]+ +\d+ (?P<place>[\w.]+):\d+\]|\[libprotobuf ERROR \S+\]"
    r'|\S*tritonserver:) *"?(?P<message>.*?)"?$'
)
# said at every start without a GPU and harmless, or said again by a line that tells more
_NOISE = re.compile(r"CudaDriverHelper has not been|ERROR: Failed to create instance: ")
_NOISY_PLACES = frozenset(
    {"pinned_memory_manager.cc", "cuda_memory_manager.cc", "metrics.cc", "chttp2_server.cc"}
)
_TRACEBACK = r"\n\nAt:"  # Triton prints a Python error's traceback behind it, escaped, in one line
MOST = 5
POLL_S = 0.1


def reasons(log: str) -> tuple[str, ...]:
    """The error lines of a log without their prefixes, each once, at most five.

    Where the server gave none, the last lines of the log: it may have died of a signal.
    """
    told = dict.fromkeys(
        match["message"].partition(_TRACEBACK)[0].strip()
        for match in map(_LINE.match, log.splitlines())
        if match and not _is_noise(match)
    )
    if told:
        return tuple(told)[:MOST]
    return tuple(line.strip() for line in log.splitlines()[-MOST:] if line.strip())


def follow(log: Path, to: BinaryIO, ended: threading.Event) -> None:
    """Copy a log to `to` while it grows, to its last byte once `ended` is set."""
    with log.open("rb") as source:
        last = False
        while not last:
            last = ended.wait(POLL_S)
            to.write(source.read())
            to.flush()


def _is_noise(match: "re.Match[str]") -> bool:
    return match["place"] in _NOISY_PLACES or bool(_NOISE.match(match["message"]))
