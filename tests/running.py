"""Looking into a running tritonserver, and stopping its model for a moment."""

import contextlib
import os
import shutil
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from reward_serve.model_process import children
from reward_serve.server import TritonServer


def model_processes(server: TritonServer) -> list[int]:
    """The processes that Triton's Python backend runs the model in."""
    pids = list(children(server.pid))
    assert pids
    return pids


@contextlib.contextmanager
def stopped_model(server: TritonServer) -> Iterator[None]:
    """Nothing is executed meanwhile; at most for some seconds, or Triton thinks it dead."""
    pids = model_processes(server)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def with_one_instance(repository: Path, folder: Path) -> Path:
    """A copy of a repository, for tests that have to know what waits and what is executed."""
    shutil.copytree(repository, folder, symlinks=True)
    (config,) = folder.glob("*/config.pbtxt")
    text = config.read_text()
    assert "count: 2" in text
    config.write_text(text.replace("count: 2", "count: 1"))
    return folder


def metric(server: TritonServer, name: str, **labels: str) -> float:
    page = urllib.request.urlopen(server.metrics_url).read().decode()
    return sum(
        float(line.rpartition(" ")[2])
        for line in page.splitlines()
        if line.startswith(f"{name}{{")
        and all(f'{key}="{value}"' in line for key, value in labels.items())
    )


def pending(server: TritonServer) -> float:
    return metric(server, "nv_inference_pending_request_count")


def eventually(holds: Callable[[], bool], *, within_s: float = 20.0) -> bool:
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
