"""Measures what a machine's matrix products reach, to judge engines by."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from numpy.typing import NDArray

from reward_contract.cpu import session_entries
from reward_export.linear import ZERO, quantise
from reward_export.ops import Ops, tensor_input

M, K, N = 2048, 1024, 4096
OURS, OURS_INT8 = "ONNX Runtime float32", "ONNX Runtime int8"


def matmul_peak_gflops(
    threads: int, device: str = "cpu", precision: str = "fp32", rounds: int = 12
) -> float:
    """Return the highest GFLOP/s over some rounds of one [M, 1024] x [1024, 4096].

    On a GPU the operands stay there, and M is large enough to keep it busy.
    """
    m = M if device == "cpu" else 16 * M
    dtype = np.dtype(np.float16 if precision == "fp16" else np.float32)
    rng = np.random.default_rng(0)
    session = matmul_session(rng.standard_normal((K, N)).astype(dtype), threads, device)
    x = rng.standard_normal((m, K)).astype(dtype)
    return _gflops(m, least_seconds(session, _bound(session, x, device), rounds))


def cpu_peaks_gflops(threads: int, rounds: int = 12) -> dict[str, float]:
    """Return what `matmul_peak_gflops` does, by library and type of the factors, on CPUs.

    The types are those that engines on CPUs compute in. int8 counts as many operations as the
    others. A type that the processor has no instructions for is emulated.
    """
    session = int8_session(threads)
    x = np.random.default_rng(0).integers(0, 256, (M, K)).astype(np.uint8)
    return {
        OURS: matmul_peak_gflops(threads, rounds=rounds),
        OURS_INT8: _gflops(M, least_seconds(session, _bound(session, x, "cpu"), rounds)),
        "PyTorch float32": _torch_gflops(torch.float32, threads, rounds),
        "PyTorch bfloat16": _torch_gflops(torch.bfloat16, threads, rounds),
    }


def least_seconds(
    session: onnxruntime.InferenceSession, binding: onnxruntime.IOBinding, rounds: int
) -> float:
    """Return the shortest time of a run with the bound tensors, over some rounds."""

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return _least_seconds(run, rounds)


def matmul_session(
    weight: NDArray[np.floating[Any]], threads: int, device: str
) -> onnxruntime.InferenceSession:
    """Return a session of one matrix product, of the weight's type."""
    op = Ops()
    kind = ir.DataType.from_numpy(weight.dtype)
    x = tensor_input("x", kind, ("m", K))
    return _session(op, x, op.MatMul(x, op.weight("w", weight)), threads, device)


def int8_session(threads: int) -> onnxruntime.InferenceSession:
    """Return a session of the integer product of `Int8Linear`, as it is served."""
    weight, scale = quantise(np.random.default_rng(0).standard_normal((K, N), np.float32), axis=0)
    op = Ops()
    x = tensor_input("x", ir.DataType.UINT8, ("m", K))
    y = op.contrib(
        "MatMulIntegerToFloat",
        x,
        op.weight("w", weight),
        op.float32(1.0),
        op.weight("scale", scale[0]),
        op.weight("x_zero", np.array(ZERO, np.uint8)),
        op.weight("w_zero", np.array(0, np.int8)),
    )
    return _session(op, x, y, threads, "cpu")


def _session(
    op: Ops, x: ir.Value, y: ir.Value, threads: int, device: str
) -> onnxruntime.InferenceSession:
    kind = ir.DataType.FLOAT if x.dtype == ir.DataType.UINT8 else x.dtype
    y.name, y.type, y.shape = "y", ir.TensorType(kind or ir.DataType.FLOAT), ir.Shape(("m", N))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    for entry in session_entries().items():  # as what serves does
        options.add_session_config_entry(*entry)
    providers = ["CUDAExecutionProvider"] if device == "cuda" else []
    return onnxruntime.InferenceSession(
        ir.to_proto(op.model([x], [y])).SerializeToString(),
        options,
        providers=[*providers, "CPUExecutionProvider"],
    )


def _bound(
    session: onnxruntime.InferenceSession, x: NDArray[Any], device: str
) -> onnxruntime.IOBinding:
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(x, device, 0))
    binding.bind_output("y", device)
    return binding


def _torch_gflops(dtype: torch.dtype, threads: int, rounds: int) -> float:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        x, weight = torch.randn(M, K, dtype=dtype), torch.randn(N, K, dtype=dtype)
        with torch.inference_mode():
            seconds = _least_seconds(lambda: torch.nn.functional.linear(x, weight), rounds)
    finally:
        torch.set_num_threads(before)
    return _gflops(M, seconds)


def _least_seconds(run: Callable[[], object], rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _gflops(m: int, seconds: float) -> float:
    return 2e-9 * m * K * N / seconds
