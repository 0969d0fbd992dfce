"""The three kernels that decide a run's time, each alone: product, gather and attention."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from reward_bench.peak import least_seconds
from reward_bench.provider.roofline import HALF
from reward_export.ops import Ops, tensor_input

Arrays = Mapping[str, NDArray[Any]]
Providers = list[tuple[str, dict[str, str]]]

N_HEAD, N_EMBD = 16, 1024  # GPT-2 medium's
SCALE = (N_EMBD // N_HEAD) ** -0.5
KINDS = {np.dtype(x): ir.DataType.from_numpy(np.dtype(x)) for x in ("float16", "int32", "int64")}


def product_tflops(providers: Providers, n_rows: int, rounds: int) -> float:
    """TFLOP/s of the largest product of a layer in float16: [n_rows, 1024] x [1024, 4096]."""
    rng = np.random.default_rng(0)
    arrays = {
        "x": rng.standard_normal((n_rows, N_EMBD)).astype(np.float16),
        "w": rng.standard_normal((N_EMBD, 4 * N_EMBD)).astype(np.float16),
    }
    taken = fastest(providers, arrays, lambda op, given: op.MatMul(given["x"], given["w"]), rounds)
    return 2 * n_rows * N_EMBD * 4 * N_EMBD / taken / 1e12


def gather_gbs(providers: Providers, n_rows: int, rounds: int) -> float:
    """Gigabytes per second, read and written, of a `Gather` of lines of 1,024 float16 numbers."""
    rng = np.random.default_rng(0)
    arrays: dict[str, NDArray[Any]] = {
        "table": rng.standard_normal((n_rows // 4, N_EMBD)).astype(np.float16),
        "rows": rng.integers(0, n_rows // 4, n_rows),
    }
    taken = fastest(
        providers, arrays, lambda op, given: op.Gather(given["table"], given["rows"]), rounds
    )
    return 2 * HALF * n_rows * N_EMBD / taken / 1e9


def padded_attention_tflops(providers: Providers, n_rows: int, size: int, rounds: int) -> float:
    """TFLOP/s of `MultiHeadAttention` with a causal bias: `size` queries and keys per row."""
    rng = np.random.default_rng(0)
    shape = (n_rows, size, N_EMBD)
    hidden = np.triu(np.full((size, size), np.finfo(np.float16).min, np.float16), 1)
    arrays = {name: rng.standard_normal(shape).astype(np.float16) for name in ("q", "k", "v")}
    arrays["bias"] = np.broadcast_to(hidden, (n_rows, 1, size, size)).copy()

    def attention(op: Ops, given: Mapping[str, ir.Value]) -> ir.Value:
        q, k, v = (given[name] for name in ("q", "k", "v"))
        return op.contrib(
            "MultiHeadAttention", q, k, v, None, None, given["bias"], num_heads=N_HEAD, scale=SCALE
        )

    taken = fastest(providers, arrays, attention, rounds)
    return 4 * n_rows * size * size * N_EMBD / taken / 1e12


def varlen_attention_tflops(providers: Providers, n_rows: int, size: int, rounds: int) -> float:
    """TFLOP/s of `MultiHeadAttention` with a mask of 3 A + 2 numbers, over its causal tiles."""
    rng = np.random.default_rng(0)
    shape = (n_rows, size, N_EMBD)
    arrays = {name: rng.standard_normal(shape).astype(np.float16) for name in ("q", "k", "v")}
    starts = np.arange(n_rows + 1) * size
    arrays["mask"] = np.concatenate([np.full(n_rows, size), starts, starts]).astype(np.int32)

    def attention(op: Ops, given: Mapping[str, ir.Value]) -> ir.Value:
        return op.contrib(
            "MultiHeadAttention",
            *(given[name] for name in ("q", "k", "v")),
            None,
            given["mask"],
            num_heads=N_HEAD,
            scale=SCALE,
            unidirectional=1,
        )

    taken = fastest(providers, arrays, attention, rounds)
    return 4 * n_rows * _causal_pairs(size) * N_EMBD / taken / 1e12


def _causal_pairs(size: int, tile: int = 64) -> int:
    return sum(tile * (start + tile) for start in range(0, size, tile))


def fastest(
    providers: Providers,
    arrays: Arrays,
    operator: Callable[[Ops, Mapping[str, ir.Value]], ir.Value],
    rounds: int,
) -> float:
    """Least seconds of one operator, with its inputs and its output on the device.

    Raises:
        RuntimeError: ONNX Runtime did not start the first provider.
    """
    op = Ops()
    given = {
        name: tensor_input(name, KINDS[array.dtype], array.shape) for name, array in arrays.items()
    }
    y = operator(op, given)
    y.name, y.type = "y", ir.TensorType(ir.DataType.FLOAT16)
    model = ir.to_proto(op.model(list(given.values()), [y])).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=providers)
    if session.get_providers()[0] != providers[0][0]:
        raise RuntimeError(f"ONNX Runtime could not start {providers[0][0]}")
    device = "cuda" if providers[0][0].startswith("CUDA") else "cpu"
    binding = session.io_binding()
    for name, array in arrays.items():
        binding.bind_ortvalue_input(
            name, onnxruntime.OrtValue.ortvalue_from_numpy(array, device, 0)
        )
    binding.bind_output("y", device)
    return least_seconds(session, binding, rounds)
