"""The own tools of Prometheus and Alertmanager for their files."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest


def promtool(*arguments: str | Path) -> str:
    """What promtool says about files it has to accept."""
    return _accepted("promtool", "prometheus", arguments)


def amtool(*arguments: str | Path) -> str:
    """The same of amtool."""
    return _accepted("amtool", "prometheus-alertmanager", arguments)


def _accepted(name: str, package: str, arguments: Sequence[str | Path]) -> str:
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"no {name} here; Debian's package {package} has it")
    done = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
