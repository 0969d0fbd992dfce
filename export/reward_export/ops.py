"""Writes ONNX operators one after another, so that a graph reads like the formula it computes.

`op.Add(x, y)` appends an `Add` node and returns its output; keyword arguments are the
operator's attributes. Operators of ONNX Runtime's own set are reached as
`op.contrib("MultiHeadAttention", ...)`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

OPSET = 20  # the first with Gelu(approximate="tanh"); ONNX Runtime 1.24 knows up to 24
CONTRIB_DOMAIN = "com.microsoft"
IR_VERSION = 10  # the newest that ONNX Runtime 1.24 is sure to read
INT32, INT64 = int(ir.DataType.INT32), int(ir.DataType.INT64)
UINT8 = int(ir.DataType.UINT8)
FLOAT, FLOAT16 = int(ir.DataType.FLOAT), int(ir.DataType.FLOAT16)

Attribute: TypeAlias = int | float | str | Sequence[int] | ir.Graph
Operator: TypeAlias = Callable[..., ir.Value]
Array: TypeAlias = NDArray[np.generic]


class Ops:
    """A graph under construction, or the body of a loop inside one.

    Names of operators and their semantics: https://onnx.ai/onnx/operators/.
    """

    def __init__(self, parent: Ops | None = None, *, own_weights: bool = False) -> None:
        self._tape = ir.tape.Tape()
        # a body sees the values around it, so constants are kept once, in the outer graph
        self._root: Ops = parent._root if parent else self
        self._holder: Ops = parent._holder if parent and not own_weights else self
        self._weights: dict[str, ir.Value] = {}
        self._arrays: dict[str, Array] = {}
        self._numbers = itertools.count()

    def __getattr__(self, op_type: str) -> Operator:
        """The operator of this name in the standard set, with one output."""
        if not op_type[0].isupper():
            raise AttributeError(op_type)

        def append(*inputs: ir.Value | None, **attributes: Attribute) -> ir.Value:
            return self._append(op_type, inputs, attributes)

        return append

    def contrib(self, op_type: str, *inputs: ir.Value | None, **attributes: Attribute) -> ir.Value:
        """An operator of ONNX Runtime's own set (`com.microsoft`), with one output."""
        return self._append(op_type, inputs, attributes, domain=CONTRIB_DOMAIN)

    def several(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        n_outputs: int,
        domain: str = "",
        **attributes: Attribute,
    ) -> Sequence[ir.Value]:
        """All outputs of an operator that has more than one."""
        outputs = self._tape.op_multi_out(
            op_type, inputs, attributes, num_outputs=n_outputs, domain=domain
        )
        for output in outputs:
            output.name = self._new_name(op_type)
        return outputs

    def split(self, x: ir.Value, *, parts: int, axis: int) -> Sequence[ir.Value]:
        """`x` cut into `parts` equal parts along `axis`."""
        return self.several("Split", x, n_outputs=parts, num_outputs=parts, axis=axis)

    def count(self, n: ir.Value) -> ir.Value:
        """0, 1, ... n - 1 as int64, for an int64 [1] of at least 1.

        `Range` gives the same, but on a GPU it would pull its neighbours' numbers onto the
        device, with copies back and forth: its CUDA kernel reads its inputs in the host's memory.
        """
        one = self.shape(1)
        more = self.Concat(self.shape(0), self.Sub(n, one), axis=0)
        return self.CumSum(self.Pad(one, more, self.int64(1)), self.int64(0), exclusive=1)

    def concat_loop(
        self,
        n_turns: ir.Value,
        turn: Callable[[Ops, ir.Value], ir.Value],
        end: ir.Value,
        *,
        axis: int,
    ) -> ir.Value:
        """`turn(op, i)` for i in 0 ... `n_turns` - 1, then `end`, concatenated along `axis`.

        Args:
            n_turns: int64 scalar, at least 1.
            turn: appends one turn's operators to the `op` it is given; `i` is an int64
                scalar. Its results may differ in size along `axis` only.
            end: what follows the last turn; may be empty along `axis`.
            axis: axis of the concatenation.
        """
        body = Ops(self)
        i = tensor_input(self._new_name("turn"), ir.DataType.INT64, ())
        goes_on = tensor_input(self._new_name("goes_on"), ir.DataType.BOOL, ())
        done = ir.Value(
            name=self._new_name("done"), type=ir.SequenceType(ir.TensorType(ir.DataType.FLOAT))
        )
        outputs = [body.Identity(goes_on), body.SequenceInsert(done, turn(body, i))]
        outputs[0].type, outputs[0].shape, outputs[1].type = goes_on.type, goes_on.shape, done.type
        graph = ir.Graph(
            [i, goes_on, done], outputs, nodes=body._tape.nodes, name=self._new_name("body")
        )
        nothing = self.SequenceEmpty(dtype=int(ir.DataType.FLOAT))
        pieces = self.Loop(n_turns, self.weight("true", np.array(True)), nothing, body=graph)
        return self.ConcatFromSequence(self.SequenceInsert(pieces, end), axis=axis)

    def scan(self, turn: Callable[..., ir.Value], *lines: ir.Value) -> ir.Value:
        """`turn(op, *blocks)` for each entry of the first axis, stacked.

        ONNX Runtime copies nothing for that: a turn reads its blocks, and writes its result, where
        they are in the lines. The weights that a turn asks for are in the loop's body: for
        processors on which products of 8-bit integers saturate, ONNX Runtime changes the weights
        of a product only if they are in the same graph as the product.

        Args:
            turn: appends one turn's operators to the `op` it is given; returns float32 [c, H].
            lines: float32 [n, c, H] each, of which each turn gets one block [c, H].

        Returns:
            float32 [n, c, H].
        """
        body = Ops(self, own_weights=True)
        kind, names = ir.DataType.FLOAT, ("block", "hidden")
        blocks = [tensor_input(self._new_name("block"), kind, names) for _ in lines]
        result = turn(body, *blocks)
        result.type = ir.TensorType(kind)
        graph = ir.Graph(
            blocks,
            [result],
            nodes=body._tape.nodes,
            initializers=body._tape.initializers,
            name=self._new_name("body"),
        )
        return self.Scan(*lines, body=graph, num_scan_inputs=len(lines))

    def int64(self, value: int) -> ir.Value:
        """A scalar constant."""
        return self._scalar(value, "int64")

    def int32(self, value: int) -> ir.Value:
        """A scalar constant."""
        return self._scalar(value, "int32")

    def float32(self, value: float) -> ir.Value:
        """A scalar constant."""
        return self._scalar(value, "float32")

    def number(self, value: float, dtype: int) -> ir.Value:
        """A scalar constant of an ONNX element type."""
        return self._scalar(value, str(ir.DataType(dtype).numpy()))

    def shape(self, *dims: int) -> ir.Value:
        """A constant 1-D int64 tensor: a shape, axes, or slice bounds."""
        name = f"shape_{'x'.join(map(str, dims))}"
        return self._root._held(name, np.array(dims, np.int64))

    def weight(self, name: str, array: Array) -> ir.Value:
        """The initializer of this name, made at the first call.

        It belongs to the graph, or to the body of the `scan` whose turn asks for it.

        Raises:
            ValueError: another array has this name, or another body has this weight.
        """
        return self._holder._held(name, array)

    def model(self, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> ir.Model:
        """Everything appended so far, as a model with these inputs and outputs."""
        graph = ir.Graph(
            inputs,
            outputs,
            nodes=self._tape.nodes,
            initializers=self._tape.initializers,
            opset_imports={"": OPSET, CONTRIB_DOMAIN: 1},
            name="gpt2_reward",
        )
        return ir.Model(graph, ir_version=IR_VERSION, producer_name="gpt2-reward")

    def _scalar(self, value: float, dtype: str) -> ir.Value:
        return self._root._held(f"{dtype}_{value}", np.array(value, dtype))

    def _held(self, name: str, array: Array) -> ir.Value:
        known = self._root._arrays
        if name not in known:
            known[name] = array
            self._weights[name] = self._tape.initializer(ir.tensor(array, name=name), name=name)
        elif name not in self._weights:
            raise ValueError(f"{name} is a weight of another part of the graph")
        elif not np.array_equal(known[name], array):
            raise ValueError(f"two different weights are called {name}")
        return self._weights[name]

    def _append(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, Attribute],
        domain: str = "",
    ) -> ir.Value:
        value = self._tape.op(op_type, inputs, attributes, domain=domain)
        value.name = self._new_name(op_type)
        return value

    def _new_name(self, stem: str) -> str:
        """A name unique in the whole model: a loop's body may not reuse a name from around it."""
        return f"{stem}_{next(self._root._numbers)}"


def tensor_input(name: str, dtype: ir.DataType, dims: Sequence[str | int]) -> ir.Value:
    """A graph input; a string in `dims` names a dynamic axis."""
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(dims))
