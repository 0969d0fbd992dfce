"""What the machine's matrix multiplication reaches in ONNX Runtime, to judge others by."""

import time

import numpy as np
import onnx_ir as ir
import onnxruntime

from reward_export.ops import Ops, tensor_input

M, K, N = 2048, 1024, 4096


def matmul_peak_gflops(threads: int, rounds: int = 12) -> float:
    """Largest float32 GFLOP/s over some rounds of one [2048, 1024] x [1024, 4096]."""
    rng = np.random.default_rng(0)
    op = Ops()
    x = tensor_input("x", ir.DataType.FLOAT, ("m", K))
    y = op.MatMul(x, op.weight("w", rng.standard_normal((K, N)).astype(np.float32)))
    y.name, y.type, y.shape = "y", ir.TensorType(ir.DataType.FLOAT), ir.Shape(("m", N))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        ir.to_proto(op.model([x], [y])).SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
    )
    feed = {"x": rng.standard_normal((M, K)).astype(np.float32)}
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        session.run(None, feed)
        seconds.append(time.perf_counter() - start)
    return 2e-9 * M * K * N / min(seconds)
