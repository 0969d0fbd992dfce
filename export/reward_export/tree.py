"""Steps 1 to 3 of the scoring graph: which tokens of a batch differ.

Read `graph.py` first; it has the alphabet of the shapes.

All of it is integer work, a few passes over the batch. With a GPU, it still runs on the CPU: the
first `Pad` takes its sizes from a `Shape`, which ONNX Runtime keeps there, and so on from operator
to operator. Operators that would break that chain are not used: those whose CUDA kernels take a
computed input from the host's memory (`Range`, `Slice`, `Expand`, `TopK`). `make cuda-dry-run`
checks this.
"""

from dataclasses import dataclass

import onnx_ir as ir

from reward_contract import CONTRACT
from reward_export.ops import INT32, INT64, Ops

NOTHING = -1  # after a row's end; smaller than any id, so that a row sorts before its extensions
NEVER = -2  # equals no token: stands for the row before the first


@dataclass(frozen=True, slots=True)
class Rows:
    """Step 1: the batch as it will be scored."""

    ids: ir.Value  # [B, N] int32; a row set aside holds pads
    length: ir.Value  # [B] int32, at least 1
    admitted: ir.Value  # [B] bool


@dataclass(frozen=True, slots=True)
class Tree:
    """Step 2: the distinct rows in lexicographic order, and which of their tokens differ.

    In that order, a row shares with the row before it whatever it shares with any earlier row, so
    one comparison per row finds the whole tree.
    """

    ids: ir.Value  # [U, N] int64, `NOTHING` after the row's end
    length: ir.Value  # [U] int64, at least 1
    fresh: ir.Value  # [U, N] bool: a token that the row before does not have; at least one per row
    which: ir.Value  # [B] int64: index among the U of each row of the batch


@dataclass(frozen=True, slots=True)
class Packed:
    """Step 3: the tokens that differ, row after row."""

    tokens: ir.Value  # [T] int64
    positions: ir.Value  # [T] int64
    node: ir.Value  # [U, N] int64: index of a (row, position) in the packed line


def admit(op: Ops, ids: ir.Value, vocab_size: int, n_positions: int) -> Rows:
    """Lengths of the rows, and which of them can be scored.

    A row's length runs up to its rightmost token that is not the pad; a row of only pads is
    scored at position 0, as `transformers` does. A row with ids outside the vocabulary, or longer
    than the position table, is set aside: it is scored as pads, and its reward is NaN.
    """
    pad = op.int32(CONTRACT.pad_token_id)
    # so that no row is empty; computing the 1 from a shape keeps all this on the CPU
    one = op.Add(op.Mul(size(op, ids, 1), op.int64(0)), op.shape(1))
    ids = op.Pad(ids, op.Concat(op.shape(0, 0, 0), one, axis=0), pad)  # [B, S + 1]
    ends = op.Cast(op.Add(op.count(size(op, ids, 1)), op.int64(1)), to=INT32)  # [S + 1]: 1, 2, ...
    is_pad = op.Equal(ids, pad)  # [B, S + 1]
    length = op.ReduceMax(op.Where(is_pad, op.int32(1), ends), op.shape(1), keepdims=0)  # [B]

    in_vocabulary = op.And(
        op.GreaterOrEqual(op.ReduceMin(ids, op.shape(1), keepdims=0), op.int32(0)),
        op.Less(op.ReduceMax(ids, op.shape(1), keepdims=0), op.int32(vocab_size)),
    )  # [B]
    admitted = op.And(in_vocabulary, op.LessOrEqual(length, op.int32(n_positions)))  # [B]

    length = op.Where(admitted, length, op.int32(1))  # [B]
    longest = op.Cast(op.ReduceMax(length, keepdims=1), to=INT64)  # [1]
    ids = op.Gather(ids, op.count(longest), axis=1)  # [B, N]
    ids = op.Where(op.Unsqueeze(admitted, op.shape(1)), ids, pad)
    return Rows(ids, length, admitted)


def prefix_tree(op: Ops, rows: Rows) -> Tree:
    """The rows in lexicographic order, each compared with the one before."""
    position = op.count(size(op, rows.ids, 1))  # [N]
    length = op.Unsqueeze(op.Cast(rows.length, to=INT64), op.shape(1))  # [B, 1]
    ended = op.GreaterOrEqual(position, length)  # [B, N]
    given = op.Where(ended, op.int64(NOTHING), op.Cast(rows.ids, to=INT64))
    ids, first, which, _ = op.several("Unique", given, n_outputs=4, axis=0, sorted=1)

    before = op.Pad(ids, op.shape(1, 0, -1, 0), op.int64(NEVER))  # [U, N], shifted by a row
    unlike = op.Where(op.Equal(ids, before), size(op, ids, 1), position)
    leaves = op.ReduceMin(unlike, op.shape(1), keepdims=1)  # [U, 1] the first that differs
    live = op.GreaterOrEqual(ids, op.int64(0))
    fresh = op.And(live, op.GreaterOrEqual(position, leaves))
    return Tree(ids, op.Cast(op.Gather(rows.length, first), to=INT64), fresh, which)


def pack(op: Ops, tree: Tree) -> Packed:
    """The fresh tokens in one line, and the index in it of each (row, position).

    If a position is not fresh, its token is that of the nearest row above that has a fresh one
    there: the last fresh one so far, when columns are read one after another.
    """
    cells = op.Reshape(op.NonZero(op.Reshape(tree.fresh, op.shape(-1))), op.shape(-1))  # [T]
    tokens = op.Gather(op.Reshape(tree.ids, op.shape(-1)), cells)

    fresh = op.Cast(tree.fresh, to=INT32)  # [U, N]
    by_row, by_column = _last_one(op, fresh, axis=1), _last_one(op, fresh, axis=0)  # [U, N]
    packed = op.Compress(_columns(op, by_row), _columns(op, tree.fresh))  # [T], column by column
    node = op.Cast(op.Gather(packed, by_column), to=INT64)
    return Packed(tokens, op.Mod(cells, size(op, tree.ids, 1)), node)


def _last_one(op: Ops, flags: ir.Value, *, axis: int) -> ir.Value:
    """Ordinal of the last set flag up to each place, when `axis` runs fastest. int32 [U, N]."""
    ones = op.ReduceSum(flags, op.shape(axis), keepdims=1)  # [U, 1] or [1, N]
    before = op.CumSum(ones, op.int64(1 - axis), exclusive=1)
    return op.Sub(op.Add(op.CumSum(flags, op.int64(axis)), before), op.int32(1))


def _columns(op: Ops, x: ir.Value) -> ir.Value:
    """[U, N] in one line, column after column. [N * U]."""
    return op.Reshape(op.Transpose(x, perm=(1, 0)), op.shape(-1))


def size(op: Ops, x: ir.Value, axis: int) -> ir.Value:
    """The length of an axis, int64 [1]."""
    return op.Shape(x, start=axis, end=axis + 1)
