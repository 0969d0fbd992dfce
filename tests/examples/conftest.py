"""The shipped checkpoint on a real tritonserver, and a way to run examples."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from waiting import eventually

from reward_export.export import ExportOptions, export

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

Run = Callable[..., str]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`gpt2-reward serve` with checkpoints/chitchat. -> its gRPC address

    The launcher, not a bare server, as users have it: examples wait while it starts Triton again,
    which ends if the machine is so busy that a process of its model stands still for ten seconds.
    """
    folder = tmp_path_factory.mktemp("trained")
    repository, printed = folder / "repository", folder / "printed"
    export(ExportOptions(str(ROOT / "checkpoints" / "chitchat"), repository), say=print)
    command = str(Path(sys.executable).with_name("gpt2-reward"))
    ports = [f"--{name}-port=0" for name in ("grpc", "http", "metrics", "health")]
    words = [command, "serve", f"--repository={repository}", *ports]
    with printed.open("wb") as file, subprocess.Popen(words, stderr=file) as process:
        try:
            assert eventually(lambda: "  log" in printed.read_text()), printed.read_text()
            found = re.search(r"gRPC +(\S+)", printed.read_text())
            assert found is not None
            yield found[1]
        finally:
            process.terminate()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs an example in an empty folder as a user does. -> what it prints"""

    def start(name: str, *arguments: str | Path) -> str:
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return start
