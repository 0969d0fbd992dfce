"""The unit of deploy/systemd, as systemd and the command read it."""

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reward_serve.commands.serve import add_arguments
from reward_serve.options import ServerOptions

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "gpt2-reward.service"
COMMAND = Path(sys.executable).with_name("gpt2-reward")


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze here; Debian's package systemd has it")
    text = UNIT.read_text()
    assert "/opt/gpt2-reward/bin/gpt2-reward" in text
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace("/opt/gpt2-reward/bin/gpt2-reward", str(COMMAND)))
    done = subprocess.run([program, "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_its_options_are_the_commands() -> None:
    (line,) = re.findall(r"^ExecStart=(.*)$", UNIT.read_text(), re.MULTILINE)
    program, command, *options = shlex.split(line)
    assert (Path(program).name, command, options.pop()) == ("gpt2-reward", "serve", "$OPTIONS")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    given = parser.parse_args(options)
    assert (given.poll, given.log_format) == (5, "json")


def test_requests_in_flight_have_time() -> None:
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.MULTILINE)
    assert int(seconds) > ServerOptions(Path()).stop_timeout_s + 5
