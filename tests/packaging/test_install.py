"""The tool that `make demo` and `make test` install with: pip with little output."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from environments import ROOT, make_environment
from install import told
from waiting import HUNG_S, eventually

OFFLINE = {**os.environ, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}


def test_a_failure_is_shown_with_pips_last_lines(tmp_path: Path) -> None:
    make_environment(tmp_path / "venv")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "install.py"), str(tmp_path / "venv"), "."],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=OFFLINE,
    )
    assert done.returncode == 1, "the build backend is not there"
    first, *lines, last = done.stderr.splitlines()
    log = tmp_path / "venv" / "pip.log"
    assert first == f"installing . into {tmp_path}/venv; all that pip says is in {log}"
    assert any("error: subprocess-exited-with-error" in line for line in lines)
    assert re.fullmatch(r"pip failed after \d+ s", last)
    assert "hatchling" in log.read_text()


def test_warnings_are_counted_by_kind(tmp_path: Path) -> None:
    nowhere = [f"--find-links={tmp_path}/nowhere-{number}" for number in range(3)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *nowhere, "gpt2-reward-of-nowhere"],
        capture_output=True,
        text=True,
        check=False,
        env=OFFLINE,
    )
    warnings = Counter[str]()
    assert [said for line in done.stderr.splitlines() for said in told(line, warnings)] == []
    ((kind, n),) = warnings.items()
    assert kind.startswith("WARNING: Location '...' is ignored")
    assert n == 3


def test_an_index_that_cannot_be_reached_is_said_at_once() -> None:
    line = "WARNING: Retrying (Retry(total=4)) after connection broken by 'refused': /simple/numpy/"
    warnings = Counter[str]()
    said = [*told(line, warnings), *told(line.replace("numpy", "torch"), warnings)]
    assert said == [f"pip cannot reach its index and tries again: {line}"]
    assert [*warnings.values()] == [2]


def test_ended_by_a_signal_it_ends_pip(tmp_path: Path) -> None:
    pip = tmp_path / "venv" / "bin" / "python"
    pip.parent.mkdir(parents=True)
    pip.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    pip.chmod(0o755)
    command = [sys.executable, str(ROOT / "tools" / "install.py"), str(tmp_path / "venv"), "."]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        process.terminate()
        _, said = process.communicate(timeout=HUNG_S)
    assert process.returncode != 0
    assert "pip failed" in said
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_another_python_is_refused_while_the_old_environment_is_there(tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho Python 3.9.0\n")
    other.chmod(0o755)
    folder = tmp_path / "checkout"
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / "Makefile").write_text((ROOT / "Makefile").read_text())
    (folder / ".venv" / "bin" / "python").symlink_to(sys.executable)

    def make(target: str) -> subprocess.CompletedProcess[str]:
        command = ["make", "--dry-run", target, f"PYTHON={other}"]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)

    refused = make("help")
    assert refused.returncode == 2
    assert f"PYTHON={other} is Python 3.9.0" in refused.stderr
    assert "make clean" in refused.stderr
    assert make("clean").returncode == 0


def test_large_files_are_named_and_packages_counted() -> None:
    lines = [
        "Collecting numpy>=1.26",
        "  Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl (192.0 MB)",
        "  Downloading idna-3.10-py3-none-any.whl (70 kB)",
        "Installing collected packages: idna, torch",
    ]
    assert [said for line in lines for said in told(line, Counter())] == [
        "fetching torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl, 192 MB",
        "unpacking 2 packages",
    ]


def test_the_demos_environment_is_part_of_the_whole_one() -> None:
    """After a full install, `make demo` adds nothing; in the other order, the rest is added."""
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
