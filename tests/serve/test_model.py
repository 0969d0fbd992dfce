"""The backend's `execute`, called directly: no server can be made to pass cancelled requests."""

import fcntl
import importlib
import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from lookup import add_model

COMM = Path("/proc/self/comm")


class FakeError(Exception):
    INTERNAL, CANCELLED = 1, 2

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class FakeTensor:
    name: str
    array: np.ndarray

    def as_numpy(self) -> np.ndarray:
        return self.array


@dataclass
class FakeResponse:
    output_tensors: list[FakeTensor] = field(default_factory=list)
    error: FakeError | None = None


@dataclass
class FakeRequest:
    x: np.ndarray
    cancelled: bool = False

    def is_cancelled(self) -> bool:
        return self.cancelled

    def requested_output_names(self) -> list[str]:
        return ["y"]


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The backend's module, with a stand-in for the module that only Triton's stub process has."""
    utils = ModuleType("triton_python_backend_utils")
    utils.TritonError, utils.Tensor, utils.InferenceResponse = FakeError, FakeTensor, FakeResponse
    utils.get_input_tensor_by_name = lambda request, name: FakeTensor(name, request.x)
    utils.triton_string_to_numpy = {"TYPE_INT64": np.int64, "TYPE_FP32": np.float32}.__getitem__
    monkeypatch.setitem(sys.modules, utils.__name__, utils)
    name = COMM.read_text()
    yield importlib.import_module("reward_serve.backend.model")
    COMM.write_text(name)  # the backend renames its process
    del sys.modules["reward_serve.backend.model"]


def instance(backend: ModuleType, model: Path, n_threads: int = 0) -> Any:
    """An instance of the model that `add_model` has made in this folder."""
    parameters = {"intra_op_thread_count": {"string_value": str(n_threads)}}
    config = {
        "max_batch_size": 8,
        "input": [{"name": "x", "data_type": "TYPE_INT64"}],
        "output": [{"name": "y", "data_type": "TYPE_INT64"}],
        "parameters": parameters,
    }
    found = backend.TritonPythonModel()
    found.initialize(
        {
            "model_config": json.dumps(config),
            "model_repository": str(model),
            "model_name": "lookup",
            "model_version": "1",
            "model_instance_kind": "CPU",
            "model_instance_device_id": "0",
        }
    )
    return found


def test_a_cancelled_request_is_not_computed_and_shifts_nobody(
    backend: ModuleType, tmp_path: Path
) -> None:
    model = instance(backend, add_model(tmp_path, "lookup"))
    out_of_range = FakeRequest(np.array([[99]]), cancelled=True)
    first, cancelled, last = model.execute(
        [FakeRequest(np.array([[1]])), out_of_range, FakeRequest(np.array([[2], [3]]))]
    )
    assert COMM.read_text() == "v1 lookup\n"
    assert cancelled.error is not None
    assert cancelled.error.code == FakeError.CANCELLED
    assert first.output_tensors[0].array.tolist() == [[10]]
    assert last.output_tensors[0].array.tolist() == [[20], [30]]


@dataclass
class Meeting:
    """Runs a session, and notes whether another one ran at the same time."""

    session: Any
    barrier: threading.Barrier
    met: list[bool]

    def run(self, *words: object) -> object:
        try:
            self.barrier.wait(0.5)
        except threading.BrokenBarrierError:
            self.met.append(False)
        else:
            self.met.append(True)
        return self.session.run(*words)


@pytest.mark.parametrize(
    ("n_threads", "n_cores", "met"), [(0, 4, False), (4, 4, False), (2, 4, True)]
)
def test_executions_that_use_all_cores_take_turns(
    backend: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    n_threads: int,
    n_cores: int,
    met: bool,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {*range(n_cores)})
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model, meeting = add_model(tmp_path, "lookup"), threading.Barrier(2)
    instances = [instance(backend, model, n_threads) for _ in range(2)]
    found: list[bool] = []
    for one in instances:
        one._session = Meeting(one._session, meeting, found)
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(one.execute, [FakeRequest(np.array([[1]]))]) for one in instances]
    assert [answer.result()[0].output_tensors[0].array.tolist() for answer in answers] == [
        [[10]]
    ] * 2
    assert found == [met, met]


def test_a_request_that_is_cancelled_while_it_waits_for_its_turn_is_not_computed(
    backend: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = instance(backend, add_model(tmp_path, "lookup"))
    request = FakeRequest(np.array([[99]]))
    with (tmp_path / "lookup-1.lock").open() as lock, ThreadPoolExecutor(1) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answers = pool.submit(model.execute, [request])
        request.cancelled = True
        fcntl.flock(lock, fcntl.LOCK_UN)
    assert answers.result()[0].error.code == FakeError.CANCELLED


@pytest.mark.parametrize(
    ("triton", "onnx"),
    [
        ("TYPE_INT64", "tensor(int64)"),
        ("TYPE_FP32", "tensor(float)"),
        ("TYPE_STRING", "tensor(string)"),
    ],
)
def test_types_are_named_as_onnx_runtime_does(backend: ModuleType, triton: str, onnx: str) -> None:
    assert backend.onnx_type(triton) == onnx


def test_a_type_without_numpy_is_refused(backend: ModuleType) -> None:
    with pytest.raises(ValueError, match="numpy has no TYPE_BF16"):
        backend.onnx_type("TYPE_BF16")
