"""What `make demo` and `make test` install with: pip, in few lines."""

import os
import re
import subprocess
import sys
from pathlib import Path

from environments import ROOT, make_environment


def test_warnings_are_counted_by_kind_and_a_failure_is_shown(tmp_path: Path) -> None:
    make_environment(tmp_path / "venv")
    nowhere = " ".join(f"{tmp_path}/nowhere-{number}" for number in range(3))
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "install.py"), str(tmp_path / "venv"), "."],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={
            **os.environ,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": nowhere,
            "PIP_CONFIG_FILE": os.devnull,
        },
    )
    assert done.returncode == 1
    first, *lines, last = done.stderr.splitlines()
    assert (
        first
        == f"installing . into {tmp_path}/venv; all that pip says is in {tmp_path}/venv/pip.log"
    )
    (warning,) = [line for line in lines if re.search(r"WARNING.*\d+ of this kind", line)]
    assert re.fullmatch(
        r"  WARNING: Location '\.\.\.' is ignored: .* \((\d+) of this kind\)", warning
    )
    assert any(line.startswith("ERROR: ") for line in lines)
    assert re.fullmatch(r"pip failed after \d+ s", last)
    assert "nowhere-2" in (tmp_path / "venv" / "pip.log").read_text()


def test_the_demos_environment_is_part_of_the_whole_one() -> None:
    """Once everything is installed, `make demo` installs nothing; the other way the rest is added."""
    rules = subprocess.run(
        ["make", "--dry-run", "--always-make", "install", "demo"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout
    touched = re.findall(r"^touch (.*)$", rules, re.MULTILINE)
    assert touched[0].split() == [".venv/.installed-for-demo", ".venv/.installed"]
    assert re.findall(r"install\.py \.venv '(.*)'", rules) == [".[dev]", ".[export,serve]"]
