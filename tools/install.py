"""Installs with pip, and says in a few lines what it does.

    python tools/install.py ENVIRONMENT REQUIREMENT...

Large files are named with their size as pip begins to fetch them. Each kind of warning is shown
once, at the end, with a count; if pip cannot reach its index, that is shown at once. If pip fails,
its last lines are shown; all of its output is in ENVIRONMENT/pip.log. SIGTERM ends pip as well.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path

LARGE_MB, N_LAST = 10, 20
MB = {"kB": 1e-3, "MB": 1, "GB": 1e3}
FILE = re.compile(r" *(Downloading|Using cached|Processing) (\S+)(?: \(([\d.]+) (kB|MB|GB)\))?")
WARNING = re.compile(r" *((?:WARNING|DEPRECATION): .*)")
BUILDING = "  Installing build dependencies: started"
INSTALLING = "Installing collected packages: "
NAMES = re.compile(r"'[^']*'|\S*/\S*")  # what differs between warnings of one kind


def main() -> int:
    """Install; the exit status is pip's."""
    environment, *requirements = sys.argv[1:]
    log = Path(environment) / "pip.log"
    say(f"installing {' '.join(requirements)} into {environment}; all that pip says is in {log}")
    start = time.monotonic()
    log.unlink(missing_ok=True)  # pip appends
    pip = Path(environment) / "bin" / "python"
    command = [str(pip), "-m", "pip", "install", "--no-compile", "--progress-bar=off"]
    command += [f"--log={log}", "--constraint=constraints.txt", "--editable", *requirements]
    warnings, last = Counter[str](), deque[str](maxlen=N_LAST)
    with subprocess.Popen(  # noqa: S603  # pip
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        for line in process.stdout or ():
            last.append(line.rstrip())
            for said in told(last[-1], warnings):
                say(f"  {said}")
    for kind, n in warnings.most_common():
        say(f"  {kind}" + (f"   ({n} of this kind)" if n > 1 else ""))
    if process.returncode:
        say("\n".join(last))
    ended = "pip failed" if process.returncode else "installed"
    say(f"{ended} after {time.monotonic() - start:.0f} s")
    return process.returncode


def told(line: str, warnings: Counter[str]) -> Iterator[str]:
    """What to show of a line of pip's output; warnings are counted by kind."""
    if warning := WARNING.match(line):
        kind = NAMES.sub("'...'", warning[1])
        warnings[kind] += 1
        if warnings[kind] == 1 and "Retrying (" in kind:
            yield f"pip cannot reach its index and tries again: {warning[1]}"
    elif line == BUILDING:
        yield "fetching what the package is built with"
    elif line.startswith(INSTALLING):
        yield f"unpacking {line.count(',') + 1} packages"
    elif found := FILE.match(line):
        how, file, size, unit = found.groups()
        n_bytes = size_of(file) if size is None else float(size) * MB[unit] * 1e6
        if n_bytes >= LARGE_MB * 1e6:
            verb = {"Downloading": "fetching", "Using cached": "from pip's cache:"}.get(
                how, "taking"
            )
            yield f"{verb} {file.rpartition('/')[2]}, {n_bytes / 1e6:,.0f} MB"


def size_of(file: str) -> int:
    """Bytes of a file on this machine; 0 if there is none."""
    return Path(file).stat().st_size if Path(file).is_file() else 0


def say(line: str) -> None:
    """Print progress to standard error."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
