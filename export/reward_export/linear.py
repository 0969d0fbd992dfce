"""A linear layer in each precision: [T, I] times [I, O], plus bias.

`float32` computes in float32 throughout.

`float16` computes on float16 weights and activations, and sums in float32.

`int8` quantises each row by its own largest magnitude, and each column of the weight by
its own. The integer product is exact, so a row's result does not depend on the other rows
of its batch. (The usual dynamic quantisation has one scale for all rows: a reward would
change with its batch mates.)
"""

from typing import Protocol, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from reward_export.ops import FLOAT, FLOAT16, UINT8, Ops

Float32: TypeAlias = NDArray[np.float32]

STEPS = 127  # of magnitude in a signed byte
ZERO = 128  # zero point of activations, which are unsigned: CPUs have the fast kernel for these
TINIEST = float(np.finfo(np.float32).tiny)  # keeps a row of zeros from dividing by zero


class Linear(Protocol):
    """A way to compute linear layers."""

    compute: int  # ONNX element type of its results, and of the attention between them

    def embed(self, op: Ops, name: str, table: Float32, rows: ir.Value) -> ir.Value:
        """Rows of a [V, H] table, in `compute`. [T] -> [T, H]."""

    def __call__(
        self, op: Ops, x: ir.Value, name: str, weight: Float32, bias: Float32 | None
    ) -> ir.Value:
        """`x` [T, I] times `weight` [I, O] plus `bias` [O], if any. -> [T, O] in `compute`.

        `name` tells the weight apart from others in the file.
        """


class Float32Linear:
    """float32 weights and arithmetic."""

    compute = FLOAT

    def embed(self, op: Ops, name: str, table: Float32, rows: ir.Value) -> ir.Value:
        """See `Linear`."""
        return op.Gather(op.weight(name, table), rows)

    def __call__(
        self, op: Ops, x: ir.Value, name: str, weight: Float32, bias: Float32 | None
    ) -> ir.Value:
        """See `Linear`."""
        product = op.MatMul(x, op.weight(f"{name}.weight", weight))
        return product if bias is None else op.Add(product, op.weight(f"{name}.bias", bias))


class Float16Linear:
    """float16 weights and arithmetic."""

    compute = FLOAT16

    def embed(self, op: Ops, name: str, table: Float32, rows: ir.Value) -> ir.Value:
        """See `Linear`."""
        return op.Gather(op.weight(name, table.astype(np.float16)), rows)

    def __call__(
        self, op: Ops, x: ir.Value, name: str, weight: Float32, bias: Float32 | None
    ) -> ir.Value:
        """See `Linear`."""
        factor = op.weight(f"{name}.weight", weight.astype(np.float16))
        if bias is None:
            return op.MatMul(x, factor)
        return op.Gemm(x, factor, op.weight(f"{name}.bias", bias.astype(np.float16)))


class Int8Linear:
    """int8 weights with a scale for each column, and activations with one for each row."""

    compute = FLOAT

    def embed(self, op: Ops, name: str, table: Float32, rows: ir.Value) -> ir.Value:
        """See `Linear`."""
        quantised, scale = quantise(table, axis=1)
        row = op.Cast(op.Gather(op.weight(f"{name}.int8", quantised), rows), to=FLOAT)
        return op.Mul(row, op.Gather(op.weight(f"{name}.scale", scale), rows))

    def __call__(
        self, op: Ops, x: ir.Value, name: str, weight: Float32, bias: Float32 | None
    ) -> ir.Value:
        """See `Linear`."""
        quantised, column_scale = quantise(weight, axis=0)
        highest, lowest = (
            reduce(x, op.shape(1), keepdims=0) for reduce in (op.ReduceMax, op.ReduceMin)
        )
        largest = op.Max(highest, op.Neg(lowest))  # [T]; cheaper than the maximum of Abs(x)
        row_scale = op.Max(op.Div(largest, op.float32(STEPS)), op.float32(TINIEST))
        zero = op.number(ZERO, UINT8)
        product = op.contrib(
            "MatMulIntegerToFloat",
            op.QuantizeLinear(x, row_scale, op.Expand(zero, op.Shape(row_scale)), axis=0),
            op.weight(f"{name}.int8", quantised),
            op.float32(1.0),  # the rows' scales follow below: this operator takes one for all rows
            op.weight(f"{name}.scale", column_scale[0]),
            zero,
            op.weight(f"{name}.zero", np.array(0, np.int8)),  # not shared: see docs/precision.md
        )  # [T, O]
        scaled = op.Mul(product, op.Unsqueeze(row_scale, op.shape(1)))
        return scaled if bias is None else op.Add(scaled, op.weight(f"{name}.bias", bias))


def quantise(array: Float32, *, axis: int) -> tuple[NDArray[np.int8], Float32]:
    """Symmetric int8 with one scale for each slice that runs along `axis`.

    Returns:
        int8 of the array's shape, and float32 scales with `axis` reduced to 1, such that
        their product is the array to within half a step.
    """
    largest = np.abs(array).max(axis=axis, keepdims=True)
    scale = np.maximum(largest / STEPS, TINIEST).astype(np.float32)
    return np.round(array / scale).astype(np.int8), scale
