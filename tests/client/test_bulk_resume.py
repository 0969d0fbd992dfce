"""What a killed run leaves, and how the next run completes it."""

import fcntl
import json
import os
import pty
import random
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_client import AsyncRewardClient
from reward_client.bulk import Job, OutputError
from reward_client.bulk.identity import Identity
from reward_client.bulk.lines import Line, Rejection
from reward_client.bulk.output import Output, Rewarded
from reward_client.results import ModelInfo

COMMAND = Path(sys.executable).with_name("gpt2-reward")
SERVER = Path(__file__).with_name("bulk_server.py")
N_LINES = 4000


@contextmanager
def server(delay_s: float) -> Iterator[str]:
    command = [sys.executable, str(SERVER), str(delay_s)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process.stdout.readline().strip()
        process.stdin.close()


def line(number: int) -> str:
    if number % 37 == 5:
        return "{torn"
    if number % 53 == 9:
        return json.dumps({"text": "NaN", "id": number})
    if number % 3:
        return json.dumps({"text": f"row {number}", "id": number})
    return json.dumps({"context": f"{number} bottles\n", "candidates": ["a", "b" * (number % 7)]})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "data.jsonl"
    file.write_text("\n".join(line(number) for number in range(1, N_LINES + 1)) + "\n")
    return file


def command(url: str, data: Path, output: Path) -> list[str]:
    options = [f"--url={url}", f"--input={data}", f"--output={output}"]
    options += ["--in-flight=4", "--max-rejected=0.1"]
    return [str(COMMAND), "score", *options]


def kill_in_the_middle(arguments: list[str], output: Path, chance: random.Random) -> int:
    """Kill a run a moment after it wrote something new. -> its exit code."""
    before = output.stat().st_size if output.exists() else 0
    with subprocess.Popen(arguments, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if output.exists() and output.stat().st_size > before:
                time.sleep(chance.uniform(0, 0.08))
                process.kill()
                break
            time.sleep(0.001)
        return process.wait()


def test_a_run_that_is_killed_again_and_again_loses_and_doubles_nothing(
    data: Path, tmp_path: Path
) -> None:
    whole, output = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    chance = random.Random(4)  # noqa: S311  # no secret
    sizes = []
    with server(delay_s=0.02) as url:
        subprocess.run(command(url, data, whole), check=True, stderr=subprocess.DEVNULL)
        for _ in range(5):
            code = kill_in_the_middle(command(url, data, output), output, chance)
            assert code == -signal.SIGKILL
            sizes.append(output.stat().st_size)
            with output.open("ab") as file:  # what a kill during a write leaves
                file.write(b'{"line": 1, "rewa'[: chance.randrange(18)])
        subprocess.run(command(url, data, output), check=True, stderr=subprocess.DEVNULL)
    assert 0 < sizes[0] < sizes[-1] < whole.stat().st_size
    assert output.read_bytes() == whole.read_bytes()
    rejected = Path(f"{output}.rejected.jsonl").read_bytes()
    assert rejected == Path(f"{whole}.rejected.jsonl").read_bytes()
    numbers = [
        json.loads(text)["line"]
        for text in (output.read_text() + rejected.decode()).split("\n")
        if text
    ]
    assert sorted(numbers) == list(range(1, N_LINES + 1))


def test_ctrl_c_says_that_the_same_command_goes_on(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with (
        server(delay_s=1) as url,  # or the run may end before the signal on a busy machine
        subprocess.Popen(command(url, data, output), stderr=subprocess.PIPE, text=True) as process,
    ):
        while not (output.exists() and output.stat().st_size):
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        errors = process.communicate()[1]
    assert process.returncode == 130
    assert errors == "interrupted; the same command continues from here\n"
    with server(delay_s=0.01) as url:
        done = subprocess.run(
            command(url, data, output), check=True, capture_output=True, text=True
        )
    assert " lines after the first " in done.stderr


def test_a_terminal_shows_rows_a_second_and_the_time_left(data: Path, tmp_path: Path) -> None:
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    with server(delay_s=0.05) as url:
        subprocess.run(command(url, data, tmp_path / "out.jsonl"), check=True, stderr=its)
    os.close(its)
    with open(ours, "rb", buffering=0) as terminal:  # noqa: PTH123  # a descriptor
        shown = terminal.read(100_000).decode()
    assert re.search(
        r"\d rows, [\d,]+ rows/s \|.*\| +\d+% \[\d\d:\d\d elapsed, \d\d:\d\d left\]", shown
    )


@pytest.fixture
def job(data: Path, tmp_path: Path) -> Job:
    return Job(data, tmp_path / "out.jsonl")


def test_two_runs_do_not_write_one_output(job: Job) -> None:
    identity = Identity.of(job, AsyncRewardClient())
    with closing(Output(job, identity)), pytest.raises(OutputError, match="another process"):
        Output(job, identity)
    Output(job, identity).close()


@pytest.mark.parametrize(
    "content", [b"1.5\n", b"no json\n", b'{"line": "1", "model_version": 1}\n', b'{"line": 1}\n']
)
def test_a_last_line_that_is_not_ours_is_refused(job: Job, content: bytes) -> None:
    identity = Identity.of(job, AsyncRewardClient())
    identity.write(job.meta)
    job.output.write_bytes(content)
    with pytest.raises(OutputError, match="was not written by"):
        Output(job, identity)
    assert job.output.read_bytes() == content


IDENTITY = Identity(0, 0, "", "jsonl", "left")
KINDS = st.lists(st.lists(st.sampled_from(["one", "group", "bad"]), min_size=1), max_size=8)


def write_rest(job: Job, portions: list[list[str]]) -> None:
    """Write the lines that are not there yet, by portion; of a portion begun, only the rest."""
    with closing(Output(job, IDENTITY)) as output:
        number = 0
        for portion in portions:
            rewarded, rejections = [], []
            for kind in portion:
                number += 1
                if number <= output.n_done:
                    continue
                if kind == "bad":
                    rejections.append(Rejection(number, "blank"))
                else:
                    is_group = kind == "group"
                    row = Line(number, "c", ["a"], is_group=is_group, copied={"id": "ä" * number})
                    rewarded.append(Rewarded(row, [number / 3]))
            output.write(rewarded, rejections, ModelInfo(1) if rewarded else None)


@settings(max_examples=100)
@given(KINDS, st.data())
def test_an_output_cut_anywhere_is_completed_to_the_same_bytes(
    portions: list[list[str]], data: st.DataObject
) -> None:
    with TemporaryDirectory() as folder:
        job = Job(Path(folder, "in"), Path(folder, "out"))
        write_rest(job, portions)
        whole = job.output.read_bytes(), job.rejected.read_bytes()
        for _ in range(3):
            cut = data.draw(st.integers(0, len(whole[0])))
            n_done = (
                json.loads(whole[0][:cut].split(b"\n")[-2])["line"]
                if b"\n" in whole[0][:cut]
                else 0
            )
            # rejections before the last whole line were written before it; more may have been
            needed = sum(
                len(text)
                for text in whole[1].splitlines(keepends=True)
                if json.loads(text)["line"] < n_done
            )
            job.output.write_bytes(whole[0][:cut])
            job.rejected.write_bytes(whole[1][: data.draw(st.integers(needed, len(whole[1])))])
            write_rest(job, portions)
            assert (job.output.read_bytes(), job.rejected.read_bytes()) == whole
