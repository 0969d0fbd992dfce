"""Steps 1 to 3 of the scoring graph: which tokens of a batch differ.

Read `graph.py` first; it has the alphabet of the shapes.
"""

from dataclasses import dataclass

import onnx_ir as ir

from reward_contract import CONTRACT
from reward_export.ops import INT32, INT64, Ops


@dataclass(frozen=True, slots=True)
class Rows:
    """Step 1: the batch as it will be scored."""

    ids: ir.Value  # [B, N] int32; a row set aside holds pads
    length: ir.Value  # [B] int32, at least 1
    admitted: ir.Value  # [B] bool


@dataclass(frozen=True, slots=True)
class Tree:
    """Step 2: who computes what."""

    owner: ir.Value  # [B, N] int32: the first row with the same tokens up to this position
    fresh: ir.Value  # [B, N] bool: a real token whose owner is its own row


@dataclass(frozen=True, slots=True)
class Packed:
    """Step 3: the tokens that differ, in row-major order."""

    tokens: ir.Value  # [T] int32
    positions: ir.Value  # [T] int64
    node: ir.Value  # [B, N] int64: where a (row, position) stands in the packed line


def admit(op: Ops, ids: ir.Value, vocab_size: int, n_positions: int) -> Rows:
    """Lengths of the rows, and which of them can be scored.

    A row's length runs up to its rightmost token that is not the pad; a row of pads alone
    is scored at position 0, as `transformers` does. Ids outside the vocabulary and lengths
    beyond the position table set the row aside: it is scored as pads, and answers NaN.
    """
    pad = op.int32(CONTRACT.pad_token_id)
    ids = op.Pad(ids, op.shape(0, 0, 0, 1), pad)  # no row is empty then   [B, S + 1]
    width = op.Squeeze(op.Shape(ids, start=1, end=2), op.shape(0))
    ends = op.Range(op.int32(1), op.Cast(op.Add(width, op.int64(1)), to=INT32), op.int32(1))
    is_pad = op.Equal(ids, pad)  # [B, S + 1]
    length = op.ReduceMax(op.Where(is_pad, op.int32(1), ends), op.shape(1), keepdims=0)  # [B]

    in_vocabulary = op.And(
        op.GreaterOrEqual(op.ReduceMin(ids, op.shape(1), keepdims=0), op.int32(0)),
        op.Less(op.ReduceMax(ids, op.shape(1), keepdims=0), op.int32(vocab_size)),
    )  # [B]
    admitted = op.And(in_vocabulary, op.LessOrEqual(length, op.int32(n_positions)))  # [B]

    length = op.Where(admitted, length, op.int32(1))  # [B]
    longest = op.Cast(op.ReduceMax(length, keepdims=1), to=INT64)  # [1]
    ids = op.Slice(ids, op.shape(0), longest, op.shape(1))  # [B, N]
    ids = op.Where(op.Unsqueeze(admitted, op.shape(1)), ids, pad)
    return Rows(ids, length, admitted)


def prefix_tree(op: Ops, rows: Rows) -> Tree:
    """For each (row, position) the first row of the batch with the same tokens up to here."""
    n_rows = op.Cast(op.Squeeze(op.Shape(rows.ids, end=1), op.shape(0)), to=INT32)
    row = op.Range(op.int32(0), n_rows, op.int32(1))  # [B]
    row_column = op.Unsqueeze(row, op.shape(1))  # [B, 1]
    position = positions(op, rows)  # [N]
    live = op.Less(position, op.Unsqueeze(rows.length, op.shape(1)))  # [B, N]

    # beyond its end a row holds a number of its own, so that no two rows agree there
    own = op.Sub(op.int32(-1), row_column)  # [B, 1]
    key = op.Where(live, rows.ids, own)  # [B, N]
    differ = op.Not(
        op.Equal(op.Unsqueeze(key, op.shape(1)), op.Unsqueeze(key, op.shape(0)))
    )  # [B, B, N]
    n_positions = op.Squeeze(op.Shape(position), op.shape(0))
    never = op.Cast(n_positions, to=INT32)
    shared = op.ReduceMin(op.Where(differ, position, never), op.shape(2), keepdims=1)  # [B, B, 1]

    same = op.Greater(shared, position)  # [B, B, N]: rows agree from 0 up to here
    first = op.Where(same, op.Unsqueeze(row, op.shape(0, 2)), n_rows)
    owner = op.ReduceMin(first, op.shape(1), keepdims=0)  # [B, N]
    return Tree(owner, op.And(live, op.Equal(owner, row_column)))


def pack(op: Ops, rows: Rows, tree: Tree) -> Packed:
    """The fresh tokens in one line, and the way from each (row, position) into it."""
    n_positions = op.Shape(rows.ids, start=1, end=2)  # [1]
    fresh = op.Reshape(tree.fresh, op.shape(-1))  # [B * N]
    cells = op.Reshape(op.NonZero(fresh), op.shape(-1))  # [T] int64 into B * N
    tokens = op.Gather(op.Reshape(rows.ids, op.shape(-1)), cells)

    rank = op.Sub(op.CumSum(op.Cast(fresh, to=INT32), op.int32(0)), op.int32(1))  # [B * N]
    owner_cell = op.Add(
        op.Mul(op.Cast(tree.owner, to=INT64), n_positions),
        op.Cast(positions(op, rows), to=INT64),
    )  # [B, N]
    node = op.Cast(op.Gather(rank, owner_cell), to=INT64)
    return Packed(tokens, op.Mod(cells, n_positions), node)


def positions(op: Ops, rows: Rows) -> ir.Value:
    """0, 1, ... N - 1 as int32."""
    n = op.Squeeze(op.Shape(rows.ids, start=1, end=2), op.shape(0))
    return op.Range(op.int32(0), op.Cast(n, to=INT32), op.int32(1))  # [N]
