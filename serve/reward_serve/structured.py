"""Log lines as JSON, one object per line, for collectors."""

import json
import re
from datetime import datetime, timezone
from typing import BinaryIO

# severity, date, time, process, place] "message"; source: Triton's default log format
_LINE = re.compile(
    r'^(?P<severity>[EFIWV])\d{4} [\d:.]+ +\d+ (?P<place>[\w.]+:\d+)\] "?(?P<said>.*?)"?$'
)
_LEVELS = {"E": "error", "F": "fatal", "I": "info", "W": "warning", "V": "debug"}


def as_json(message: str) -> str:
    """JSON of one of the launcher's own lines."""
    return _line(source="gpt2-reward serve", message=message)


def triton_as_json(line: str) -> str:
    """JSON of a line in tritonserver's log; what a model's process prints has no level or place."""
    found = _LINE.match(line)
    if found is None:
        return _line(source="tritonserver", message=line)
    level = _LEVELS[found["severity"]]
    return _line(source="tritonserver", level=level, place=found["place"], message=found["said"])


def _line(**fields: str) -> str:
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    return json.dumps({"time": now, **fields}, ensure_ascii=False)


class JsonLines:
    """A file that takes Triton's log and writes JSON.

    Args:
        to: where the lines go.
    """

    def __init__(self, to: BinaryIO) -> None:
        self._to = to
        self._begun = b""  # an incomplete line

    def write(self, content: bytes) -> None:
        """Take a piece of the log; it may end within a line."""
        *lines, self._begun = (self._begun + content).split(b"\n")
        for line in lines:
            if line:
                text = triton_as_json(line.decode("utf-8", "replace"))
                self._to.write(f"{text}\n".encode())

    def flush(self) -> None:
        """Flush the complete lines."""
        self._to.flush()
