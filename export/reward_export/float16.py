"""The float16 graph as a GPU rounds it, in float32 operators that any CPU has.

ONNX Runtime on a CPU computes float16 graphs in float32 and shows nothing of what float16 does
to a checkpoint. Here each result that a GPU would store in float16 is rounded to it: products
(which CUDA sums in float32), norms, the residual stream, the weights of the values, and the
activation function step by step, as CUDA's kernel of `FastGelu` computes it. Only the order of
sums is not emulated. The exporter compares this graph with PyTorch if there is no GPU.
"""

import math

import numpy as np
import onnx_ir as ir

from reward_export.attention import Looped
from reward_export.graph import Layers, Stream
from reward_export.linear import Float32, Float32Linear
from reward_export.ops import FLOAT, FLOAT16, Ops


def rounded(op: Ops, x: ir.Value) -> ir.Value:
    """The nearest float16 numbers, as float32."""
    return op.Cast(op.Cast(x, to=FLOAT16), to=FLOAT)


def nearest(array: Float32) -> Float32:
    """The nearest float16 numbers to a weight, as float32; beyond float16's range, infinity."""
    return array.astype(np.float16).astype(np.float32)


class RoundedLinear(Float32Linear):
    """`linear.Float16Linear`, rounded."""

    def embed(self, op: Ops, name: str, table: Float32, rows: ir.Value) -> ir.Value:
        """See `Linear`."""
        return super().embed(op, name, nearest(table), rows)

    def __call__(
        self, op: Ops, x: ir.Value, name: str, weight: Float32, bias: Float32 | None
    ) -> ir.Value:
        """See `Linear`."""
        exact = None if bias is None else nearest(bias)
        return rounded(op, super().__call__(op, x, name, nearest(weight), exact))


class RoundedLooped(Looped):
    """Attention as the fused kernels compute it: sums in float32, weights of values in float16."""

    def __call__(
        self, query: ir.Value, key: ir.Value, value: ir.Value, *, n_head: int, scale: float
    ) -> ir.Value:
        """See `Attention`."""
        attended = super().__call__(query, key, value, n_head=n_head, scale=scale)
        return rounded(self._op, attended)

    def _rounded(self, op: Ops, x: ir.Value) -> ir.Value:
        return rounded(op, x)


class RoundedLayers(Layers):
    """`graph.FusedLayers`, rounded."""

    def embed(self, tokens: ir.Value, positions: ir.Value) -> Stream:
        """See `Layers`."""
        return Stream(rounded(self.op, super().embed(tokens, positions).hidden))

    def norm(self, stream: Stream, name: str) -> tuple[ir.Value, ir.Value]:
        """See `Layers`."""
        normed, hidden = super().norm(stream, name)
        return rounded(self.op, normed), hidden

    def update(self, hidden: ir.Value, x: ir.Value, name: str) -> Stream:
        """See `Layers`."""
        bias = self.weight(f"{name}.bias")
        return Stream(
            rounded(self.op, self.op.Add(self.op.Add(hidden, self._product(x, name)), bias))
        )

    def activated(self, x: ir.Value, name: str) -> ir.Value:
        """See `Layers`; tanh as in CUDA's kernel, every step of which is float16."""
        op = self.op
        x = rounded(op, op.Add(self._product(x, name), self.weight(f"{name}.bias")))
        if self.architecture.gelu != "tanh":
            return rounded(op, op.Gelu(x, approximate=self.architecture.gelu))
        half, root = op.float32(0.5), nearest_number(math.sqrt(2 / math.pi))
        cubic = op.float32(nearest_number(0.044715 * math.sqrt(2 / math.pi)))
        inner = rounded(op, op.Mul(rounded(op, op.Mul(cubic, x)), x))
        inner = rounded(op, op.Mul(x, rounded(op, op.Add(inner, op.float32(root)))))
        share = rounded(op, op.Add(half, op.Mul(half, rounded(op, op.Tanh(inner)))))
        return rounded(op, op.Mul(x, share))

    def weight(self, name: str) -> ir.Value:
        """See `Layers`."""
        return self.op.weight(name, nearest(self.weights[f"transformer.{name}"]))

    def _product(self, x: ir.Value, name: str) -> ir.Value:
        return self.times(self.op, x, name, self.weights[f"transformer.{name}.weight"], None)


def nearest_number(value: float) -> float:
    """The float16 number nearest to a constant."""
    return float(np.float16(value))
