"""Finds the reason in a tritonserver's log."""

import re

# severity, date, time, thread, place] "message": E1123 07:01:02.345678 123 server.cc:251] "..."
# or, of the command line: PATH/tritonserver: unrecognized option '--x'
_LINE = re.compile(
    r"^(?:[EF]\d{4} [\d:.]+ \d+ [\w.]+:\d+\]|\S*tritonserver:) \"?(?P<message>.*?)\"?$"
)
# said at every start on a machine without a GPU, and harmless
_NOISE = re.compile(r"CUDA|Cuda|NVML|DCGM|nvml|dcgm|pinned memory|TRITONBACKEND_")
_TRACEBACK = r"\n\nAt:"  # Triton prints a Python error's traceback behind it, escaped, in one line
MOST = 5


def reasons(log: str) -> tuple[str, ...]:
    """The error lines of a log without their prefixes, each once, at most five.

    Where the server gave none, the last lines of the log: it may have died of a signal.
    """
    lines = [match["message"] for match in map(_LINE.match, log.splitlines()) if match]
    told = dict.fromkeys(
        line.partition(_TRACEBACK)[0].strip() for line in lines if not _NOISE.search(line)
    )
    if told:
        return tuple(told)[:MOST]
    return tuple(line for line in log.splitlines()[-MOST:] if line.strip())
