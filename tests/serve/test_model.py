"""The backend's `execute`, called directly: no server can be made to pass cancelled requests."""

import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

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


def test_a_cancelled_request_is_not_computed_and_shifts_nobody(
    backend: ModuleType, tmp_path: Path
) -> None:
    model = backend.TritonPythonModel()
    model.initialize(
        {
            "model_config": '{"max_batch_size": 8, "input": [{"name": "x", "data_type": '
            '"TYPE_INT64"}], "output": [{"name": "y", "data_type": "TYPE_INT64"}]}',
            "model_repository": str(add_model(tmp_path, "lookup")),
            "model_name": "lookup",
            "model_version": "1",
            "model_instance_kind": "CPU",
            "model_instance_device_id": "0",
        }
    )
    out_of_range = FakeRequest(np.array([[99]]), cancelled=True)
    first, cancelled, last = model.execute(
        [FakeRequest(np.array([[1]])), out_of_range, FakeRequest(np.array([[2], [3]]))]
    )
    assert COMM.read_text() == "v1 lookup\n"
    assert cancelled.error is not None
    assert cancelled.error.code == FakeError.CANCELLED
    assert first.output_tensors[0].array.tolist() == [[10]]
    assert last.output_tensors[0].array.tolist() == [[20], [30]]


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
