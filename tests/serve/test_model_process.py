"""Telling a child that died from one that was ended and waited for."""

import argparse
import subprocess
import sys
from collections.abc import Iterator

import pytest
from waiting import eventually

from reward_serve.commands.serve import add_arguments, polling
from reward_serve.model_process import Watch, children

PARENT = """
import subprocess, sys
child = subprocess.Popen(["sleep", "60"])
print(child.pid, flush=True)
sys.stdin.readline()
child.kill()
print("killed", flush=True)
sys.stdin.readline()
child.wait()
print("waited for", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def parent() -> Iterator[subprocess.Popen]:
    words = [sys.executable, "-c", PARENT]
    with subprocess.Popen(words, stdin=-1, stdout=-1, text=True, bufsize=1) as process:
        yield process


def go_on(parent: subprocess.Popen) -> str:
    parent.stdin.write("\n")
    return parent.stdout.readline().strip()


def test_a_dead_child_is_found_at_the_second_look(parent: subprocess.Popen) -> None:
    watch = Watch(parent.pid)
    child = int(parent.stdout.readline())
    assert list(children(parent.pid)) == [child]
    assert [watch.finds_dead(), watch.finds_dead()] == [False, False]
    assert go_on(parent) == "killed"
    assert eventually(lambda: children(parent.pid)[child] == "Z")
    assert [watch.finds_dead(), watch.finds_dead()] == [False, True]


def test_a_child_that_was_waited_for_is_no_failure(parent: subprocess.Popen) -> None:
    watch = Watch(parent.pid)
    child = int(parent.stdout.readline())
    assert go_on(parent) == "killed"
    assert eventually(lambda: children(parent.pid)[child] == "Z")
    assert not watch.finds_dead()
    assert go_on(parent) == "waited for"
    assert [watch.finds_dead(), watch.finds_dead()] == [False, False]


@pytest.mark.parametrize("seconds", ["0", "-1", "0.5", "often"])
def test_polling_takes_whole_seconds(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args([f"--poll={seconds}"])
    assert "is no whole number of seconds, 1 or more" in capsys.readouterr().err
    assert polling(parser.parse_args([]).poll) == ()
