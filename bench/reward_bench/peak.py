"""The speed of a matrix product in ONNX Runtime on this machine, to judge engines by."""

import time
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from reward_export.ops import Ops, tensor_input

M, K, N = 2048, 1024, 4096


def matmul_peak_gflops(
    threads: int, device: str = "cpu", precision: str = "fp32", rounds: int = 12
) -> float:
    """Largest GFLOP/s over some rounds of one product, [M, 1024] x [1024, 4096].

    On a GPU the operands stay there, and M is large enough to fill it.
    """
    m = M if device == "cpu" else 16 * M
    dtype = np.dtype(np.float16 if precision == "fp16" else np.float32)
    rng = np.random.default_rng(0)
    session = matmul_session(rng.standard_normal((K, N)).astype(dtype), threads, device)
    binding = session.io_binding()
    x = onnxruntime.OrtValue.ortvalue_from_numpy(
        rng.standard_normal((m, K)).astype(dtype), device, 0
    )
    binding.bind_ortvalue_input("x", x)
    binding.bind_output("y", device)
    return 2e-9 * m * K * N / least_seconds(session, binding, rounds)


def least_seconds(
    session: onnxruntime.InferenceSession, binding: onnxruntime.IOBinding, rounds: int
) -> float:
    """Least seconds of a run with the bound inputs and outputs, over some rounds."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def matmul_session(
    weight: NDArray[np.floating[Any]], threads: int, device: str
) -> onnxruntime.InferenceSession:
    """A session of one matrix product, of the weight's type."""
    op = Ops()
    kind = ir.DataType.from_numpy(weight.dtype)
    x = tensor_input("x", kind, ("m", K))
    y = op.MatMul(x, op.weight("w", weight))
    y.name, y.type, y.shape = "y", ir.TensorType(kind), ir.Shape(("m", N))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    providers = ["CUDAExecutionProvider"] if device == "cuda" else []
    return onnxruntime.InferenceSession(
        ir.to_proto(op.model([x], [y])).SerializeToString(),
        options,
        providers=[*providers, "CPUExecutionProvider"],
    )
