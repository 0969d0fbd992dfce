"""What the server suites share: a published model on a real Triton, and the right answers."""

import contextlib
import re
import shutil
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2

from reward_bench import plain
from reward_bench.checkpoints import checkpoint_of
from reward_bench.engines import Engine, Spec, start, write_requests
from reward_bench.load import (
    Call,
    Load,
    Loop,
    Request,
    closed_loop,
    drive,
    steady_rows_a_second,
)
from reward_bench.suite import ROOT, Setting
from reward_contract import MODEL_NAME
from reward_export.checkpoint import load as load_checkpoint
from reward_export.export import ExportOptions, export
from reward_serve.model_process import children
from reward_serve.server import ServerOptions, TritonServer

TAKES = frozenset({"shape", "device", "precision", "seed", "seconds", "rounds", "threads"})
CONFIG = ROOT / "model_repository" / MODEL_NAME / "config.pbtxt"
PLAIN, FULL, UNBOUNDED, TWO = "plain", "full_batches", "unbounded", "two_instances"
FULL_ROWS = 32  # rows per execution of all of these but the plain export
EXACT, REDUCED = 1e-4, 2e-2  # how far rewards may be off in float32, and in any other precision
CPU_ROWS = r'parameters \{ key: "cpu_max_batch_size" value: \{ string_value: "(\d+)"'
BULK, INTERACTIVE = 2, 1  # priorities in config.pbtxt


class Host:
    """A running server with our model and others, and the repository that it serves."""

    def __init__(self, setting: Setting, server: TritonServer, repository: Path) -> None:
        self.setting, self.server, self.repository = setting, server, repository

    @property
    def url(self) -> str:
        """The server's gRPC address."""
        return self.server.grpc_url

    @property
    def tolerance(self) -> float:
        """How far a reward may be off in this host's precision."""
        return EXACT if self.setting.precision == "fp32" else REDUCED

    def load(self, pool: Sequence[Request], model: str = MODEL_NAME, priority: int = 0) -> Load:
        """A load at this host's precision."""
        # the plain export is float32, but compared with rewards of our precision
        return Load(pool, model, priority, self.tolerance)

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
        return {"triton": [self.server.pid], "models": list(children(self.server.pid))}


@contextlib.contextmanager
def host(setting: Setting, models: Sequence[str] = ()) -> Iterator[Host]:
    """Publish the setting's checkpoint, and serve it and the `models` asked for."""
    with (
        tempfile.TemporaryDirectory() as folder,
        served_from(setting, publish(setting, Path(folder), models)) as served,
    ):
        yield served


@contextlib.contextmanager
def served_from(setting: Setting, repository: Path) -> Iterator[Host]:
    """Serve a published repository."""
    options = ServerOptions(repository, "127.0.0.1", 0, 0, 0, end_with_parent=True)
    with TritonServer(options) as server:
        yield Host(setting, server, repository)


def publish(setting: Setting, folder: Path, models: Sequence[str]) -> Path:
    """Publish our model and those asked for. -> the repository."""
    source, repository = checkpoint_of(setting, folder / "checkpoint"), folder / "repository"
    kind = "KIND_GPU" if setting.device == "cuda" else "KIND_CPU"
    text = CONFIG.read_text().replace("KIND_AUTO", kind)
    # suites choose their batches themselves, on CPUs too
    text = re.sub(f"{CPU_ROWS}.*\n", "", text)
    ours = repository / MODEL_NAME
    ours.mkdir(parents=True)
    (ours / CONFIG.name).write_text(text)
    options = ExportOptions(source, repository, precision=setting.precision)
    version = export(options, lambda _line: None).path
    for model in models:
        own = text.replace(f'"{MODEL_NAME}"', f'"{model}"')
        (repository / model / "1").mkdir(parents=True)
        if model != PLAIN:
            own = with_number(own, "max_batch_size", FULL_ROWS)
            if model == UNBOUNDED:
                own = without_queue_policies(own)
            own = with_number(own, "count", 2 if model == TWO else 1)
            shutil.copytree(version, repository / model / "1", dirs_exist_ok=True)
        else:
            plain.export(load_checkpoint(source).model, repository / model / "1/model.onnx")
        (repository / model / CONFIG.name).write_text(own)
    return repository


@contextlib.contextmanager
def shipped(setting: Setting) -> Iterator[Host]:
    """Publish the setting's checkpoint, and serve it with the configuration as shipped.

    On a CPU with the largest batch that `gpt2-reward serve` takes there.
    """
    with tempfile.TemporaryDirectory() as folder:
        repository = publish(setting, Path(folder), ())
        if setting.device == "cpu":
            config = repository / MODEL_NAME / CONFIG.name
            (rows,) = re.findall(CPU_ROWS, CONFIG.read_text())
            config.write_text(with_number(config.read_text(), "max_batch_size", int(rows)))
        with served_from(setting, repository) as served:
            yield served


def with_number(text: str, key: str, value: int) -> str:
    """The configuration with this number wherever the key occurs; comments stay."""
    return re.sub(rf"\b{key}: \d+", f"{key}: {value}", text)


def without_queue_policies(text: str) -> str:
    """The configuration with dynamic batching only: no priorities, bounds or timeouts."""
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    for field in ("priority_levels", "default_priority_level", "default_queue_policy"):
        config.dynamic_batching.ClearField(field)
    config.dynamic_batching.ClearField("priority_queue_policy")
    return str(text_format.MessageToString(config))


@contextlib.contextmanager
def in_process(
    setting: Setting, repository: Path, arrays: Mapping[str, NDArray[np.int32]]
) -> Iterator[Engine]:
    """The served graph in a process of its own, which scores the arrays by their names."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "arrays.npz"
        lengths = {name: np.zeros(len(ids), np.int64) for name, ids in arrays.items()}  # unread
        write_requests(file, {name: [(ids, lengths[name])] for name, ids in arrays.items()})
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
    """Each request with its rewards, computed in process, one request per batch."""
    arrays = {f"{name} {i}": ids for name, pool in pools.items() for i, ids in enumerate(pool)}
    with in_process(host.setting, host.repository, arrays) as engine:
        rewards = {name: engine.ask(name).rewards.astype(np.float32) for name in arrays}
    return {
        name: [Request(ids, rewards[f"{name} {i}"]) for i, ids in enumerate(pool)]
        for name, pool in pools.items()
    }


def rows_a_second(
    served: Host,
    pool: Sequence[Request],
    in_flight: int,
    model: str = MODEL_NAME,
    seconds: float | None = None,
) -> float:
    """Throughput of a closed loop over `seconds`, the setting's unless given."""
    return throughput(
        served.url, served.load(pool, model), in_flight, seconds or served.setting.seconds
    )


def throughput(url: str, load: Load, in_flight: int, seconds: float) -> float:
    """Rows per second of a closed loop.

    Raises:
        RuntimeError: a call was not answered.
    """
    calls = calls_of(url, load, closed_loop(in_flight, seconds), in_flight)
    return steady_rows_a_second(calls, in_flight, seconds)


def calls_of(url: str, load: Load, loop: Loop, in_flight: int) -> list[Call]:
    """The calls of a loop of `in_flight` callers.

    Raises:
        RuntimeError: a call was not answered.
    """
    (calls,) = drive(url, (load, loop))
    failed = Counter(call.outcome for call in calls if call.outcome != "ok")
    if failed:
        raise RuntimeError(
            f"{failed.total()} of {len(calls)} calls of {in_flight} callers were not answered: "
            f"{dict(failed)}"
        )
    return calls
