"""How a child that died is told from one that was ended and waited for."""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from waiting import eventually

from reward_serve.commands.serve import add_arguments, polling
from reward_serve.model_process import Child, Idleness, Watch, children

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


def test_a_dead_child_is_found_at_the_second_look_and_once(parent: subprocess.Popen) -> None:
    watch, patient = Watch(parent.pid, patience_s=0), Watch(parent.pid, patience_s=3600)
    child = int(parent.stdout.readline())
    assert list(children(parent.pid)) == [child]
    assert [watch.newly_dead(), watch.newly_dead()] == [[], []]
    assert go_on(parent) == "killed"
    assert eventually(lambda: children(parent.pid)[child].is_dead)
    assert watch.newly_dead() == []
    (dead,) = watch.newly_dead()
    assert (dead.end, dead.name, dead.serves) == ("SIGKILL", "sleep", None)
    assert watch.newly_dead() == []
    assert [patient.newly_dead() for _ in range(20)] == [[]] * 20, "its parent may yet wait for it"


def test_a_child_that_was_waited_for_is_no_failure(parent: subprocess.Popen) -> None:
    watch = Watch(parent.pid, patience_s=0)
    child = int(parent.stdout.readline())
    assert watch.newly_dead() == []
    assert go_on(parent) == "killed"
    assert eventually(lambda: children(parent.pid)[child].is_dead)
    assert watch.newly_dead() == []
    assert go_on(parent) == "waited for"
    assert [watch.newly_dead(), watch.newly_dead()] == [[], []]


def test_what_a_process_serves_is_in_its_name() -> None:
    def serves(name: str) -> tuple[str, int] | None:
        return Child(name, "S", 0, 0).serves

    assert serves("v12 gpt2_reward") == ("gpt2_reward", 12)
    assert serves("triton_python_b") is None
    assert serves("vim x") is None


def test_of_long_names_the_beginning_has_to_do() -> None:
    child = Child("v1 gpt2_reward_", "S", 0, 0)
    names = ["gpt2_reward", "gpt2_reward_retry", "gpt2_reward_length", "gpt2_rewarder"]
    assert [name for name in names if child.may_serve(name, 1)] == names[1:3]
    assert not child.may_serve("gpt2_reward_retry", 11)
    assert [name for name in names if Child("v1 gpt2_reward", "S", 0, 0).may_serve(name, 1)] == [
        "gpt2_reward"
    ]


def test_processes_that_wait_are_idle_and_stopped_ones_are_not(parent: subprocess.Popen) -> None:
    child = int(parent.stdout.readline())
    idleness = Idleness(parent.pid)
    assert idleness.lasts() == 0, "nothing is known of the time before"
    assert eventually(lambda: idleness.lasts() >= 3)
    os.kill(child, signal.SIGSTOP)
    assert eventually(lambda: children(parent.pid)[child].state == "T")
    assert idleness.lasts() == 0
    os.kill(child, signal.SIGCONT)
    assert eventually(lambda: idleness.lasts() >= 3)


@pytest.mark.parametrize("seconds", ["0", "-1", "0.5", "often"])
def test_polling_takes_whole_seconds(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args([f"--poll={seconds}"])
    assert "is not a whole number of seconds, 1 or more" in capsys.readouterr().err
    assert polling(parser.parse_args([]).poll) == ()
