"""Engines, each in a process of its own that runs workloads by name."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from reward_bench.rivals import vllm_environment
from reward_contract.cpu import session_entries

# in a folder of its own: an interpreter puts a script's folder on its path, and a rival's would
# import this package's modules from there if the names are the same
WORKER = Path(__file__).parent / "worker" / "__main__.py"

Rewards = NDArray[np.float64]  # [B]
Request = tuple[NDArray[np.int32], NDArray[np.int64]]  # padded ids [B, S], lengths [B]


@dataclass(frozen=True)
class Answer:
    """One run of a workload: wall-clock and processor seconds, rewards in order."""

    seconds: float
    processor_seconds: float
    rewards: Rewards


@dataclass
class Engine:
    """A running worker."""

    name: str
    process: subprocess.Popen[str]
    log: Path

    def ask(self, workload: str) -> Answer:
        """Run a workload once."""
        with contextlib.suppress(BrokenPipeError):  # the worker has ended; reading reports it
            stdin = cast("IO[str]", self.process.stdin)
            stdin.write(f"{workload}\n")
            stdin.flush()
        answer = self._read()
        rewards = np.array(answer["rewards"])
        return Answer(answer["seconds"], answer["processor_seconds"], rewards)

    def wait_until_ready(self) -> None:
        """Return when the engine has loaded."""
        self._read()

    def _read(self) -> dict[str, Any]:
        line = cast("IO[str]", self.process.stdout).readline()
        if not line:
            last = "\n".join(self.log.read_text().splitlines()[-15:])
            text = f"{self.name} ended, exit code {self.process.wait()}:\n{last}"
            raise EngineEndedError(text, self)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def kill(self) -> None:
        """Kill the worker and the processes that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):  # it ended before it read the last request
                cast("IO[str]", stream).close()


class EngineEndedError(RuntimeError):
    """A worker has ended; the message has the end of its log."""

    def __init__(self, message: str, engine: Engine) -> None:
        super().__init__(message)
        self.engine = engine


def write_requests(file: Path, workloads: Mapping[str, Sequence[Request]]) -> None:
    """Write the requests of each workload, numbered as the worker reads them."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, requests in workloads.items():
        for i, (ids, lengths) in enumerate(requests):
            arrays |= {f"{name}.ids.{i}": ids, f"{name}.lengths.{i}": lengths}
    np.savez(file, **arrays)


@dataclass(frozen=True)
class Spec:
    """An engine to start: its column's name, interpreter, kind in the worker, model and device."""

    name: str
    python: str
    kind: str
    model: Path
    device: str = "cpu"


def start(spec: Spec, file: Path, threads: int) -> Engine:
    """Start a worker; what it prints besides answers goes to its log."""
    log = file.with_name(f"{spec.name}.log")
    environment = {**os.environ, "BENCH_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    environment["BENCH_DEVICE"] = spec.device
    environment["BENCH_SESSION_ENTRIES"] = json.dumps(session_entries())
    if spec.kind.startswith("vllm") and spec.device == "cpu":
        environment |= vllm_environment(Path(spec.python), threads)
    command = [spec.python, str(WORKER), spec.kind, str(spec.model), str(file)]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
            start_new_session=True,  # vLLM has processes of its own, which would keep spinning
        )
    return Engine(spec.name, process, log)
