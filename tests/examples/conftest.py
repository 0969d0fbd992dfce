"""The shipped checkpoint on a real tritonserver, and a way to run examples."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reward_export.export import ExportOptions, export
from reward_serve.server import ServerOptions, TritonServer

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

Run = Callable[..., str]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server with checkpoints/chitchat."""
    repository = tmp_path_factory.mktemp("trained") / "repository"
    export(ExportOptions(str(ROOT / "checkpoints" / "chitchat"), repository), say=print)
    options = ServerOptions(repository, grpc_port=0, http_port=0, metrics_port=0)
    with TritonServer(options) as server:
        yield server


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
