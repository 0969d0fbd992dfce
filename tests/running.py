"""Look into a running tritonserver, and hold up its model's executions."""

import contextlib
import fcntl
import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from reward_contract import MODEL_NAME
from reward_serve.model_process import children
from reward_serve.server import TritonServer
from reward_text import Tokenizer

GATED_MODEL = Path(__file__).with_name("gated_model.py")


class Gate:
    """Where the executions of a gated model wait.

    Args:
        repository: the gated model's repository.
    """

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        model = repository / MODEL_NAME
        self._gate = model / "gate"
        self._executions = model / "executions"
        self._gate.touch()
        self._executions.touch()

    @contextlib.contextmanager
    def closed(self) -> Iterator[None]:
        """Hold up executions inside the block: those that begin wait at the gate."""
        with self._gate.open("a") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            self._executions.write_text("")
            yield

    def n_executions(self) -> int:
        """Executions that have reached the gate since it was last closed."""
        return self._executions.read_text().count("\n")

    def order(self, *texts: str) -> list[str]:
        """Those of `texts` that have reached the gate since it was last closed, in order."""
        names = {tuple(Tokenizer().encode_rows([text])[0].tolist()): text for text in texts}
        executions = map(json.loads, self._executions.read_text().splitlines())
        rows = [tuple(row) for requests in executions for ids in requests for row in ids]
        return [names[row] for row in rows if row in names]


def gated(repository: Path, copy: Path) -> Gate:
    """A copy of `repository` whose one instance waits at a gate before each execution."""
    model = with_one_instance(repository, copy) / MODEL_NAME
    shutil.copy2(GATED_MODEL, model / "1" / "model.py")
    config = model / "config.pbtxt"
    text = config.read_text()
    assert 'backend: "onnxruntime"' in text
    text = text.replace('backend: "onnxruntime"', 'backend: "python"')
    config.write_text(f'{text}parameters {{ key: "gate" value {{ string_value: "{model}" }} }}\n')
    return Gate(copy)


def model_processes(server: TritonServer) -> list[int]:
    """The processes that Triton's Python backend runs the model in."""
    pids = list(children(server.pid))
    assert pids
    return pids


def with_one_instance(repository: Path, folder: Path) -> Path:
    """A copy with one instance, for tests that have to know what waits and what is executed."""
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
