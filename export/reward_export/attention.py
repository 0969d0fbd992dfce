"""Step 4 of the scoring graph: attention for packed tokens, each over its own row.

A row's fresh tokens are one stretch, from where it leaves the tree to its end. Their
queries attend to the keys of the row from position 0 on: those of its own stretch, and
those that other rows own. There are three ways to do that, which give the same numbers:

`Looped` takes one piece of a stretch after the other, at its exact size: nothing is
padded, and a piece's queries are not multiplied with the keys after it. The fastest on
CPUs. On a GPU, each turn of its loop would wait for the host four times.

`Padded` cuts all stretches into chunks of one size, gathers every chunk's keys, and runs
one operator over all of them, with a bias that hides what a query must not see. For GPUs.

`varlen.Varlen` gives the operator chunks of different sizes. Also for GPUs.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir

from reward_export.ops import FLOAT, FLOAT16, INT64, Ops
from reward_export.tree import Packed, Tree, size

# added to the score of a key that must not be seen: the lowest number of its type
MASKED = {FLOAT: float(np.finfo(np.float32).min), FLOAT16: float(np.finfo(np.float16).min)}
BLOCK = 512  # most tokens of a block, see `whole_blocks`
PIECE = 128  # most queries per turn of the loop: larger pieces score more keys that they ignore
# multiples that CUDA's fused kernel wants: 88 queries of 221 keys are an error, 87 queries go to a
# kernel that stores all scores, and so do fewer than 256 in float32
UNIT, CHUNK = 8, {FLOAT16: 8, FLOAT: 256}


class Attention(Protocol):
    """Attention as a block uses it, planned once for all blocks."""

    def __call__(
        self, query: ir.Value, key: ir.Value, value: ir.Value, *, n_head: int, scale: float
    ) -> ir.Value:
        """Each query's mixture of the values that it sees.

        Args:
            query: [T, H] for the tokens whose result is wanted, in the length of `lengthened`.
            key: [T, H] of all packed tokens.
            value: [T, H] of all packed tokens.
            n_head: number of heads.
            scale: factor for the product of query and key.

        Returns:
            [T, H], in the order of `query`.
        """

    def lengthened(self, line: ir.Value) -> ir.Value:
        """An int64 line of one number per query, with zeros at its end for any spare queries."""


class AttentionForm(Protocol):
    """How attention is computed; planned anew for each set of queries."""

    def __call__(
        self, op: Ops, tree: Tree, packed: Packed, stretches: "Stretches", compute: int, /
    ) -> Attention:
        """Plan attention for a set of queries.

        Args:
            op: appends to the graph.
            tree: the distinct rows.
            packed: their tokens that differ.
            stretches: the queries.
            compute: ONNX element type of queries, keys and values.
        """


@dataclass(frozen=True, slots=True)
class Stretches:
    """Runs of queries that belong to one row each; all int64."""

    row: ir.Value  # [A]
    begin: ir.Value  # [A] into the packed queries
    n_queries: ir.Value  # [A]
    position: ir.Value  # [A] of the first query in its row


def fresh_stretches(op: Ops, tree: Tree) -> Stretches:
    """The stretch of fresh tokens of each distinct row. [U]."""
    fresh = op.ReduceSum(op.Cast(tree.fresh, to=INT64), op.shape(1), keepdims=0)
    begin = op.CumSum(fresh, op.int64(0), exclusive=1)
    position = op.Sub(tree.length, fresh)  # where the row leaves the tree
    return Stretches(op.count(size(op, fresh, 0)), begin, fresh, position)


def last_tokens(op: Ops, tree: Tree) -> Stretches:
    """One query for each distinct row: its last token. [U]."""
    row, one = op.count(size(op, tree.length, 0)), op.int64(1)
    return Stretches(row, row, op.Min(tree.length, one), op.Sub(tree.length, one))


def cut(op: Ops, stretches: Stretches, most: ir.Value) -> Stretches:
    """The stretches in pieces of at most `most` queries, in the same order."""
    pieces = divide_up(op, stretches.n_queries, most)
    ordinal = op.count(op.ReduceMax(pieces, keepdims=1))
    exists = op.Less(ordinal, op.Unsqueeze(pieces, op.shape(1)))
    whole, nth = (op.Squeeze(x, op.shape(0)) for x in op.split(op.NonZero(exists), parts=2, axis=0))
    offset = op.Mul(nth, most)
    return Stretches(
        op.Gather(stretches.row, whole),
        op.Add(op.Gather(stretches.begin, whole), offset),
        op.Min(most, op.Sub(op.Gather(stretches.n_queries, whole), offset)),
        op.Add(op.Gather(stretches.position, whole), offset),
    )


@dataclass(frozen=True, slots=True)
class _Piece:
    """One turn of the loop."""

    begin: ir.Value  # [1] into the packed queries
    end: ir.Value  # [1]
    nodes: ir.Value  # [k] of its keys in the packed line
    bias: ir.Value  # [c, k]


class Looped:
    """Attention over one piece of a stretch after the other, at its exact size."""

    def __init__(
        self, op: Ops, tree: Tree, packed: Packed, stretches: Stretches, _compute: int = FLOAT
    ) -> None:
        self._op = op
        self._node = packed.node  # [U, N]
        self._position = op.count(size(op, tree.ids, 1))  # [N]
        self._pieces = cut(op, stretches, op.int64(PIECE))
        self._n_pieces = op.Squeeze(op.Shape(self._pieces.row), op.shape(0))
        n_queries = op.ReduceSum(stretches.n_queries, keepdims=1)
        self._n_spare = op.Sub(whole_blocks(op, n_queries), n_queries)  # [1]

    def __call__(
        self, query: ir.Value, key: ir.Value, value: ir.Value, *, n_head: int, scale: float
    ) -> ir.Value:
        """See `Attention`."""
        op = self._op
        query, key, value = (split_heads(op, x, n_head) for x in (query, key, value))  # [h, T, D]

        def turn(op: Ops, i: ir.Value) -> ir.Value:
            piece = self._piece(op, op.Unsqueeze(i, op.shape(0)))
            seen_key = op.Gather(key, piece.nodes, axis=1)  # [h, k, D]
            seen_value = op.Gather(value, piece.nodes, axis=1)
            asking = op.Slice(query, piece.begin, piece.end, op.shape(1))  # [h, c, D]
            score = op.contrib("FusedMatMul", asking, seen_key, transB=1, alpha=scale)  # [h, c, k]
            weight = self._rounded(op, op.Softmax(op.Add(score, piece.bias), axis=-1))
            return op.MatMul(weight, seen_value)

        width = op.Shape(query, start=2, end=3)
        spare = op.Concat(op.shape(n_head), self._n_spare, width, axis=0)
        zeros = op.Expand(op.float32(0.0), spare)
        attended = op.concat_loop(self._n_pieces, turn, zeros, axis=1)  # [h, T, D]
        return merge_heads(op, attended)

    def lengthened(self, line: ir.Value) -> ir.Value:
        """See `Attention`; spare queries fill the last block, and see nothing."""
        op = self._op
        return op.Pad(line, op.Concat(op.shape(0), self._n_spare, axis=0), op.int64(0))

    def _rounded(self, _op: Ops, x: ir.Value) -> ir.Value:
        """The weights of the values; `float16.RoundedLooped` rounds them to float16."""
        return x

    def _piece(self, op: Ops, i: ir.Value) -> _Piece:
        """Piece `i` [1]: c queries, and the k keys up to the last of them."""
        begin, n_queries = op.Gather(self._pieces.begin, i), op.Gather(self._pieces.n_queries, i)
        first = op.Gather(self._pieces.position, i)
        n_keys = op.Add(first, n_queries)
        row = op.Squeeze(op.Gather(self._pieces.row, i), op.shape(0))
        key_position = op.Slice(self._position, op.shape(0), n_keys, op.shape(0))  # [k]
        query_position = op.Slice(self._position, first, n_keys, op.shape(0))  # [c]
        return _Piece(
            begin,
            op.Add(begin, n_queries),
            op.Slice(op.Gather(self._node, row), op.shape(0), n_keys, op.shape(0)),
            causal_bias(op, query_position, key_position),
        )


class Padded:
    """All stretches at once, in chunks of their mean size C; C and N are rounded up for CUDA.

    Args:
        op: appends to the graph.
        tree: the distinct rows.
        packed: their tokens that differ.
        stretches: the queries.
        compute: ONNX element type of queries, keys and values.
    """

    def __init__(
        self, op: Ops, tree: Tree, packed: Packed, stretches: Stretches, compute: int
    ) -> None:
        self._op = op
        n_queries = op.ReduceSum(stretches.n_queries, keepdims=1)
        mean = divide_up(op, n_queries, size(op, stretches.row, 0))
        c = round_up(op, mean, CHUNK[compute])  # one long stretch costs the others nothing
        chunks = cut(op, stretches, c)

        step = op.count(c)  # [C]
        n_queries, begin, first = (
            op.Unsqueeze(x, op.shape(1)) for x in (chunks.n_queries, chunks.begin, chunks.position)
        )  # each [A, 1]
        used = op.Less(step, n_queries)  # [A, C]
        step = op.Min(step, op.Sub(n_queries, op.int64(1)))  # spare queries repeat the last
        self._queries = op.Add(begin, step)  # [A, C] into the packed queries
        self._slots = op.Reshape(op.NonZero(op.Reshape(used, op.shape(-1))), op.shape(-1))  # [T]
        n = size(op, tree.ids, 1)
        wide = round_up(op, n, UNIT)  # N from here on
        more = op.Concat(op.shape(0, 0, 0), op.Sub(wide, n), axis=0)
        self._keys = op.Gather(op.Pad(packed.node, more, op.int64(0)), chunks.row)  # [A, N]
        # in float16, which holds whole numbers up to 2,048: integers would keep the bias on the
        # CPU, and each batch would copy it from there
        key_position = op.Cast(op.count(wide), to=FLOAT16)  # [N]
        bias = causal_bias(op, op.Cast(op.Add(first, step), to=FLOAT16), key_position, compute)
        self._bias = op.Unsqueeze(bias, op.shape(1))  # [A, 1, C, N]

    def __call__(
        self, query: ir.Value, key: ir.Value, value: ir.Value, *, n_head: int, scale: float
    ) -> ir.Value:
        """See `Attention`."""
        op = self._op
        attended = op.contrib(
            "MultiHeadAttention",
            op.Gather(query, self._queries),  # [A, C, H]
            op.Gather(key, self._keys),  # [A, N, H]
            op.Gather(value, self._keys),  # [A, N, H]
            None,
            None,
            self._bias,
            num_heads=n_head,
            scale=scale,
        )  # [A, C, H]
        width = op.Shape(query, start=1, end=2)
        flat = op.Reshape(attended, op.Concat(op.shape(-1), width, axis=0))  # [A * C, H]
        return op.Gather(flat, self._slots)

    def lengthened(self, line: ir.Value) -> ir.Value:
        """See `Attention`; spare queries repeat others here."""
        return line


def n_blocks(op: Ops, n_tokens: ir.Value) -> ir.Value:
    """Into how many blocks a line of tokens is cut."""
    return divide_up(op, n_tokens, op.int64(BLOCK))


def whole_blocks(op: Ops, n_tokens: ir.Value) -> ir.Value:
    """A line's length, rounded up by less than `n_blocks` so that its blocks are of one size."""
    n = n_blocks(op, n_tokens)
    return op.Mul(n, divide_up(op, n_tokens, n))


def causal_bias(
    op: Ops, query_position: ir.Value, key_position: ir.Value, compute: int = FLOAT
) -> ir.Value:
    """[..., c] and [k] to [..., c, k]: 0 where a query sees the key, else `MASKED`."""
    seen = op.LessOrEqual(key_position, op.Unsqueeze(query_position, op.shape(-1)))
    return op.Where(seen, op.number(0.0, compute), op.number(MASKED[compute], compute))


def split_heads(op: Ops, x: ir.Value, n_head: int) -> ir.Value:
    """[T, H] to [h, T, D]: each head's rows are contiguous."""
    return op.Transpose(op.Reshape(x, op.shape(0, n_head, -1)), perm=(1, 0, 2))


def merge_heads(op: Ops, x: ir.Value) -> ir.Value:
    """[h, T, D] to [T, H]."""
    n_tokens = op.Shape(x, start=1, end=2)
    x = op.Transpose(x, perm=(1, 0, 2))
    return op.Reshape(x, op.Concat(n_tokens, op.shape(-1), axis=0))


def divide_up(op: Ops, x: ir.Value, y: ir.Value) -> ir.Value:
    """`x` / `y`, rounded up."""
    return op.Div(op.Sub(op.Add(x, y), op.int64(1)), y)


def round_up(op: Ops, x: ir.Value, unit: int) -> ir.Value:
    """The next multiple of `unit`."""
    return op.Mul(divide_up(op, x, op.int64(unit)), op.int64(unit))
