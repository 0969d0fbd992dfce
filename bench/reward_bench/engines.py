"""Engines, each in a process of its own that is asked by the name of a workload."""

import contextlib
import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

# a folder of its own: an interpreter has the folder that it runs on its path, and a rival's would
# find this package's modules there under the names of its own
WORKER = Path(__file__).parent / "worker" / "__main__.py"

Rewards = NDArray[np.float64]  # [B]


@dataclass
class Engine:
    """A running worker."""

    name: str
    process: subprocess.Popen[str]
    log: Path

    def ask(self, workload: str) -> tuple[float, Rewards]:
        """Seconds and rewards of one run."""
        with contextlib.suppress(BrokenPipeError):  # it has ended, as reading will tell
            stdin = cast("IO[str]", self.process.stdin)
            stdin.write(f"{workload}\n")
            stdin.flush()
        answer = self._read()
        return answer["seconds"], np.array(answer["rewards"])

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
        """With the processes that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):  # a question that it did not live to read
                cast("IO[str]", stream).close()


class EngineEndedError(RuntimeError):
    """A worker is gone; the message has its last words."""

    def __init__(self, message: str, engine: Engine) -> None:
        super().__init__(message)
        self.engine = engine


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
            start_new_session=True,  # vLLM has processes of its own, which would go on spinning
        )
    return Engine(spec.name, process, log)


def vllm_environment(python: Path, threads: int) -> dict[str, str]:
    """What vLLM's own documentation asks for on CPUs, where it is installed.

    Threads are bound by hand: by itself it leaves one processor to its server, half of two. And it
    stays in its own process, whose threads then are all that work.
    """
    libraries = [
        *Path("/usr/lib").glob("*/libtcmalloc_minimal.so.4"),
        *python.parent.parent.glob("lib/libiomp5.so"),
    ]
    return {
        "LD_PRELOAD": ":".join(map(str, libraries)),
        # GiB; all engines are in memory at once, and 1 is enough for GPT-2 small
        "VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "2"),
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "HF_HUB_OFFLINE": "1",
    }
