"""Ways to compute one linear layer in 8 bits on a CPU: speed against float32, and error.

All ways run in turn, each in its own session that does not spin, and the minimum over the
rounds counts. The way that was kept is `reward_export.linear`'s `Int8Linear`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnxruntime

from reward_bench.suite import GRAPH, Report, Setting, Suite, option, say
from reward_contract.cpu import session_entries
from reward_export.linear import STEPS, ZERO, Float32Linear, Int8Linear, quantise
from reward_export.ops import Ops, tensor_input

K, N = 768, 3072  # GPT-2 small's mlp.c_fc
RNG = np.random.default_rng(0)
WEIGHT = (0.02 * RNG.standard_normal((K, N))).astype(np.float32)
BIAS = (0.02 * RNG.standard_normal(N)).astype(np.float32)


@dataclass(frozen=True)
class Options:
    """How much work."""

    rows: int = option(512, "rows of the layer's input", kind=int)


Layer = Callable[[Ops, ir.Value], ir.Value]


def dynamic(op: Ops, x: ir.Value) -> ir.Value:
    """One scale for all rows, found in them: what `quantize_dynamic` writes."""
    quantised, scale = quantise(WEIGHT, axis=0)
    weight, scales = op.weight("w", quantised), op.weight("s", scale[0])
    return op.contrib("DynamicQuantizeMatMul", x, weight, scales, None, op.weight("b", BIAS))


def fixed(op: Ops, x: ir.Value) -> ir.Value:
    """One scale for all rows, calibrated beforehand: here for magnitudes up to 4.2."""
    quantised, scale = quantise(WEIGHT, axis=0)
    step, zero = op.float32(4.2 / STEPS), op.weight("zero", np.array(ZERO, np.uint8))
    return op.contrib(
        "MatMulIntegerToFloat",
        op.QuantizeLinear(x, step, zero),
        op.weight("w", quantised),
        step,
        op.weight("s", scale[0]),
        zero,
        op.weight("wz", np.array(0, np.int8)),
        op.weight("b", BIAS),
    )


def weight_only(block: int) -> Layer:
    """`MatMulNBits` at accuracy level 4: activations are quantised for each row and block."""
    blocks = WEIGHT.T.reshape(N, K // block, block)
    scale = np.abs(blocks).max(-1) / STEPS
    quantised = np.round(blocks / scale[..., None] + ZERO).astype(np.uint8)

    def layer(op: Ops, x: ir.Value) -> ir.Value:
        return op.contrib(
            "MatMulNBits",
            x,
            op.weight("w", quantised),
            op.weight("s", scale.astype(np.float32).reshape(-1)),
            None,
            None,
            op.weight("b", BIAS),
            K=K,
            N=N,
            bits=8,
            block_size=block,
            accuracy_level=4,
        )

    return layer


WAYS: dict[str, Layer] = {
    "float32": lambda op, x: Float32Linear()(op, x, "layer", WEIGHT, BIAS),
    "int8, a scale for each row (kept)": lambda op, x: Int8Linear()(op, x, "layer", WEIGHT, BIAS),
    "int8, one dynamic scale for all rows": dynamic,
    "int8, one fixed scale": fixed,
    "8-bit weights, blocks of 32": weight_only(32),
    "8-bit weights, blocks of 128": weight_only(128),
}


def open_session(layer: Layer, threads: int) -> onnxruntime.InferenceSession:
    """A session of one layer, x [t, K] to y [t, N]."""
    op = Ops()
    x = tensor_input("x", ir.DataType.FLOAT, ("t", K))
    y = layer(op, x)
    y.name, y.type, y.shape = "y", ir.TensorType(ir.DataType.FLOAT), ir.Shape(("t", N))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for entry in session_entries().items():  # as what serves does
        options.add_session_config_entry(*entry)
    graph = ir.to_proto(op.model([x], [y])).SerializeToString()
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def run(setting: Setting, own: Options) -> Report:
    """Times float32, billion operations per second and largest error of each way."""
    x = RNG.standard_normal((own.rows, K)).astype(np.float32)
    wanted = x @ WEIGHT + BIAS
    sessions = {name: open_session(layer, setting.threads) for name, layer in WAYS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    error = {}
    for _ in range(setting.rounds):
        for name, session in sessions.items():
            start = time.perf_counter()
            y = session.run(None, {"x": x})[0]
            seconds[name].append(time.perf_counter() - start)
            error[name] = float(np.abs(y - wanted).max() / wanted.std())
    base = min(seconds["float32"])
    ways = {
        name: {
            "speed_up": base / min(times),
            "gops": 2e-9 * x.size * N / min(times),
            "max_error_in_stds": error[name],
        }
        for name, times in seconds.items()
    }
    say("| way | times float32 | billion operations/s | largest error (stds) |\n|---|---|---|---|")
    for name, way in ways.items():
        say("| {} | {speed_up:.2f} | {gops:.0f} | {max_error_in_stds:.3f} |".format(name, **way))
    return {"rows": own.rows, "ways": ways}


SUITE = Suite(
    name="linear",
    about="in process: ways to compute one linear layer in 8 bits",
    file="linear.json",
    measures=GRAPH,
    takes=frozenset({"threads", "rounds"}),
    options=Options,
    run=run,
    rounds=40,
)
