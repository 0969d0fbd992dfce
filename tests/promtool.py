"""Check files of Prometheus and Alertmanager with their own tools."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest


def promtool(*arguments: str | Path) -> str:
    """Run promtool, which has to accept its files. -> what it prints"""
    return _accepted("promtool", "prometheus", arguments)


def amtool(*arguments: str | Path) -> str:
    """Run amtool, which has to accept its files. -> what it prints"""
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
