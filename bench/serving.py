"""What the server suites share: a published model on a real Triton, and the right answers."""

import contextlib
import os
import re
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from graph import SHAPES, Engine, Spec, start
from load import Load, Request
from machine import TICKS_A_SECOND
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2

from reward_contract import MODEL_NAME
from reward_export.checkpoint import load as load_checkpoint
from reward_export.export import ExportOptions, export
from reward_export.random_checkpoint import random_checkpoint
from reward_serve.server import ServerOptions, TritonServer

CONFIG = Path(__file__).parent.parent / "model_repository" / MODEL_NAME / "config.pbtxt"
PLAIN, FULL, UNBOUNDED, TWO = "plain", "full_batches", "unbounded", "two_instances"
FULL_ROWS = 32  # rows of an execution of all of these but the plain export
TOLERANCES = {"fp32": 1e-4, "fp16": 2e-2, "int8": 2e-2}


@dataclass(frozen=True)
class Setting:
    """What is served and on what.

    Attributes:
        shape: a name in `SHAPES`.
        device: cpu or cuda.
        precision: of our model; the plain export is float32.
        seed: of weights, texts and arrivals.
        seconds: of one measurement.
        rounds: interleaved measurements of each kind.
        threads: of engines in process; the server takes every core.
    """

    shape: str
    device: str = "cpu"
    precision: str = "fp32"
    seed: int = 0
    seconds: float = 2.0
    rounds: int = 3
    threads: int = os.cpu_count() or 1


class Host:
    """A running server with our model, and with others by name, and the folder that it serves."""

    def __init__(self, setting: Setting, server: TritonServer, repository: Path) -> None:
        self.setting, self.server, self.repository = setting, server, repository

    @property
    def url(self) -> str:
        """Of gRPC."""
        return self.server.grpc_url

    def load(self, pool: Sequence[Request], model: str = MODEL_NAME, priority: int = 0) -> Load:
        """A load at this host's precision."""
        tolerance = TOLERANCES["fp32" if model == PLAIN else self.setting.precision]
        if model == PLAIN:  # float32, held to rewards of our own precision
            tolerance = max(tolerance, TOLERANCES[self.setting.precision])
        return Load(pool, model, priority, tolerance)

    def metric(self, name: str, model: str = MODEL_NAME) -> float:
        """Sum of one of Triton's metrics over a model's versions."""
        page = urllib.request.urlopen(self.server.metrics_url).read().decode()  # noqa: S310
        lines = [line for line in page.splitlines() if line.startswith(f"{name}{{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines if f'model="{model}"' in line)

    def max_batch_size(self) -> int:
        """Rows that an execution of our model takes at most."""
        text = (self.repository / MODEL_NAME / CONFIG.name).read_text()
        return int(text_format.Parse(text, model_config_pb2.ModelConfig()).max_batch_size)

    def processes(self) -> dict[str, list[int]]:
        """Process ids of the server itself and of its models' processes."""
        return {"triton": [self.server.pid], "models": children(self.server.pid)}


@contextlib.contextmanager
def host(setting: Setting, models: Sequence[str] = ()) -> Iterator[Host]:
    """Publish random weights of a shape, and serve them and the `models` asked for."""
    with (
        tempfile.TemporaryDirectory() as folder,
        served_from(setting, publish(setting, Path(folder), models)) as served,
    ):
        yield served


@contextlib.contextmanager
def served_from(setting: Setting, repository: Path) -> Iterator[Host]:
    """Serve what has been published."""
    options = ServerOptions(repository, "127.0.0.1", 0, 0, 0, end_with_parent=True)
    with TritonServer(options) as server:
        yield Host(setting, server, repository)


def publish(setting: Setting, folder: Path, models: Sequence[str]) -> Path:
    """A repository with our model, and those asked for."""
    n_layer, n_head, n_embd = SHAPES[setting.shape]
    source, repository = folder / "checkpoint", folder / "repository"
    random_checkpoint(source, n_layer=n_layer, n_head=n_head, n_embd=n_embd, seed=setting.seed)
    kind = "KIND_GPU" if setting.device == "cuda" else "KIND_CPU"
    text = CONFIG.read_text().replace("KIND_AUTO", kind)
    ours = repository / MODEL_NAME
    ours.mkdir(parents=True)
    (ours / CONFIG.name).write_text(text)
    options = ExportOptions(str(source), repository, precision=setting.precision)
    version = export(options, lambda _line: None).path
    for model in models:
        own = text.replace(f'"{MODEL_NAME}"', f'"{model}"')
        (repository / model / "1").mkdir(parents=True)
        if model != PLAIN:
            own = with_number(own, "max_batch_size", FULL_ROWS)
            if model == UNBOUNDED:
                own = without_queue_policies(own)
            elif model == TWO:
                own = with_number(own, "count", 2)
            shutil.copytree(version, repository / model / "1", dirs_exist_ok=True)
        else:
            import plain  # noqa: PLC0415  # it needs what only this model needs

            plain.export(load_checkpoint(str(source)).model, repository / model / "1/model.onnx")
        (repository / model / CONFIG.name).write_text(own)
    return repository


def with_number(text: str, key: str, value: int) -> str:
    """The configuration with another number wherever this key stands; comments stay."""
    return re.sub(rf"\b{key}: \d+", f"{key}: {value}", text)


def without_queue_policies(text: str) -> str:
    """The configuration with dynamic batching alone: no priorities, bounds or timeouts."""
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    for field in ("priority_levels", "default_priority_level", "default_queue_policy"):
        config.dynamic_batching.ClearField(field)
    config.dynamic_batching.ClearField("priority_queue_policy")
    return text_format.MessageToString(config)


@contextlib.contextmanager
def in_process(
    setting: Setting, repository: Path, arrays: Mapping[str, NDArray[np.int32]]
) -> Iterator[Engine]:
    """The served graph in a process of its own, which answers to the arrays' names."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "arrays.npz"
        named = {f"{name}.ids": ids for name, ids in arrays.items()}
        lengths = {f"{name}.lengths": np.zeros(len(ids)) for name, ids in arrays.items()}
        np.savez(file, **named, **lengths)
        kind = "onnx-cuda" if setting.device == "cuda" else "onnx"
        model = repository / MODEL_NAME / "1" / "model.onnx"
        engine = start(Spec("in process", sys.executable, kind, model), file, setting.threads)
        try:
            engine.wait_until_ready()
            yield engine
        finally:
            engine.kill()


def answered(
    host: Host, pools: Mapping[str, Sequence[NDArray[np.int32]]]
) -> dict[str, list[Request]]:
    """Each request with its rewards, computed in process, alone and without batch mates."""
    arrays = {f"{name} {i}": ids for name, pool in pools.items() for i, ids in enumerate(pool)}
    with in_process(host.setting, host.repository, arrays) as engine:
        rewards = {name: engine.ask(name)[1].astype(np.float32) for name in arrays}
    return {
        name: [Request(ids, rewards[f"{name} {i}"]) for i, ids in enumerate(pool)]
        for name, pool in pools.items()
    }


def children(pid: int) -> list[int]:
    """Processes that this one has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def cpu_seconds(pids: Sequence[int]) -> float:
    """Processor time that these have used, in user and kernel."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS_A_SECOND


def resident_mb(pids: Sequence[int]) -> float:
    """Memory that these hold; what they share counts for each."""
    statuses = (Path(f"/proc/{pid}/status").read_text() for pid in pids)
    return sum(int(status.partition("VmRSS:")[2].split()[0]) for status in statuses) / 1024
