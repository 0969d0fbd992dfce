"""Prometheus' own tool for its files."""

import shutil
import subprocess
from pathlib import Path

import pytest


def promtool(*arguments: str | Path) -> str:
    """What promtool says about files it has to accept."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("no promtool here; Debian's package prometheus has it")
    done = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
