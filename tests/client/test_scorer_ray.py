"""Rewards through a real Ray cluster, whose driver ends its process if it loses the cluster."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs gpt2-reward[ray]")

CASES = Path(__file__).with_name("ray_cases.py")


def test_every_row_is_scored_once_whatever_is_killed() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(CASES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
