"""The README's first example and its "Step by step", from the wheel in an empty folder.

The hub id is replaced by the shipped checkpoint's folder, and the ports by free ones.
"""

import contextlib
import re
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from environments import ROOT, make_environment, shell_environment, where_packages_are_from

README = (ROOT / "README.md").read_text()
STEPS = README.partition("## Step by step\n")[2].partition("\n## ")[0]
FIRST_SCREEN = README.partition("\n## ")[0]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HUB_ID = "ChaiML/gpt2_medium_retry_and_continue_12m_reward_model"
CHECKPOINT = ROOT / "checkpoints" / "chitchat"
FREE_PORTS = "--grpc-port 0 --http-port 0 --metrics-port 0 --health-port 0"
NUMBER = re.compile(r"[+-]?\d+\.\d+")
TOLERANCE = 1e-3  # of a reward that is printed with four digits, on another processor


@dataclass
class Terminal:
    """Shells in one folder, with one environment."""

    folder: Path
    environment: dict[str, str]

    def run(self, *command: str) -> str:
        """Run a command, which has to succeed. -> what it prints"""
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env=self.environment,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextlib.contextmanager
    def serving(self, line: str) -> Iterator[str]:
        """Run a server meanwhile. -> its gRPC address"""
        with subprocess.Popen(
            ["bash", "-c", f"exec {line.strip()}"],
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=self.environment,
        ) as process:
            assert process.stderr is not None
            said = ""
            try:
                while (found := re.search(r"gRPC +(\S+)\n", said)) is None:
                    said += (line := process.stderr.readline())
                    assert line, said
                yield found[1]
            finally:
                process.terminate()
                process.communicate()
            assert process.returncode == 0


@pytest.fixture(scope="module")
def terminal(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """An empty folder, an environment without the project, and pip that finds its wheel.

    Torch and the like are gigabytes, so they are linked from this environment.
    """
    folder = tmp_path_factory.mktemp("from-pip")
    (folder / "work").mkdir()
    (folder / "third-party").mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if path.suffix != ".pth" and not path.name.startswith("gpt2_reward-"):
            (folder / "third-party" / path.name).symlink_to(path)
    commands = make_environment(folder / "environment")
    # up to Python 3.11 a new environment has a setuptools that is older than torch requires
    subprocess.run(
        [str(commands / "pip"), "uninstall", "--quiet", "--yes", "setuptools"], check=True
    )
    (packages,) = (folder / "environment" / "lib").glob("python3*/site-packages")
    (packages / "third-party.pth").write_text(f"{folder / 'third-party'}\n")
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(distributions)}
    return Terminal(folder / "work", {**shell_environment(commands), **pip})


def lines_of(block: str) -> list[str]:
    """The block's commands; a line that ends in a backslash is joined to the next."""
    joined = block.replace("\\\n", " ").replace(HUB_ID, str(CHECKPOINT))
    return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def assert_printed(found: str, said: str) -> None:
    assert NUMBER.sub("NUMBER", found) == NUMBER.sub("NUMBER", said)
    np.testing.assert_allclose(
        [float(number) for number in NUMBER.findall(found)],
        [float(number) for number in NUMBER.findall(said)],
        atol=TOLERANCE,
    )


def test_the_steps_work_and_print_what_the_readme_says(terminal: Terminal) -> None:
    blocks = [*BLOCK.findall(STEPS), *BLOCK.findall(FIRST_SCREEN)]
    assert [kind for kind, _ in blocks] == ["sh", "sh", "text", "python", "python", "text"]
    install, rank, ranked, silent, python, printed = (block for _, block in blocks)
    *before, serve = lines_of(install)
    assert [line.split()[:2] for line in (*before, serve)] == [
        ["pip", "install"],
        ["gpt2-reward", "export"],
        ["gpt2-reward", "serve"],
    ]
    assert list(terminal.folder.iterdir()) == []
    for line in before:
        terminal.run("bash", "-c", line)
    with terminal.serving(f"{serve} {FREE_PORTS}") as url:
        (line,) = lines_of(rank)
        assert_printed(terminal.run("bash", "-c", f"{line} --url {url}"), ranked)
        for source, said in ((silent, ""), (python, printed)):
            command = source.replace("localhost:8001", url)
            assert_printed(terminal.run("python", "-c", command), said)
    made = sorted(
        path.name for path in (terminal.folder / "model_repository/gpt2_reward").iterdir()
    )
    assert made == ["1", "config.pbtxt"]
    commands = Path(terminal.environment["PATH"].partition(":")[0])
    for path in where_packages_are_from(commands, terminal.folder):
        for room in ("client", "export", "gateway", "serve", "train"):
            assert not Path(path).is_relative_to(ROOT / room)
