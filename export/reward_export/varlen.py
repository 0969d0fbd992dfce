"""Attention over chunks of different sizes, which only CUDA's `MultiHeadAttention` computes.

The operator takes all chunks' queries in one line and all their keys in another, and a mask of
3 A + 2 numbers that says where each chunk begins and how many keys it has. Nothing is padded,
and queries need no gather: the packed line is the line of queries. Only CUDA's implementation has
this. Its rules are followed strictly here, because a kernel that is given anything else returns
wrong numbers without an error:

- starts begin at 0, rise, and end with the length of their line;
- a chunk's keys lie inside its own interval, and no two intervals overlap;
- a chunk's queries belong to the last of its keys (causal from the bottom right), so it has no
  more queries than keys;
- no chunk has more queries than the kernel's tiles of 64 reach: C rounded up to whole tiles.

The lines are passed as [A, C, H] and [A, K, H], so they are lengthened to multiples of A. The
spare entries form a chunk of their own, the last, which nothing reads.

Source: `contrib_ops/cuda/bert/cutlass_fmha/fmha_launch_template.h` of ONNX Runtime.
"""

import onnx_ir as ir

from reward_export.attention import Stretches, cut, divide_up
from reward_export.ops import INT32, Ops
from reward_export.tree import Packed, Tree, size

TILE = 64  # queries per tile of the kernel


class Varlen:
    """All stretches at once, in chunks of whole tiles, about as long as the mean stretch.

    Args:
        op: appends to the graph.
        tree: the distinct rows.
        packed: their tokens that differ.
        stretches: the queries.
    """

    def __init__(
        self, op: Ops, tree: Tree, packed: Packed, stretches: Stretches, _compute: int
    ) -> None:
        self._op = op
        n_queries = op.ReduceSum(stretches.n_queries, keepdims=1)
        mean = op.Div(n_queries, size(op, stretches.row, 0))
        nearest = op.Div(op.Add(mean, op.int64(TILE // 2)), op.int64(TILE))
        tiles = op.Max(nearest, op.shape(1))  # [1]
        chunks = cut(op, stretches, op.Mul(tiles, op.int64(TILE)))

        n_keys = op.Add(chunks.position, chunks.n_queries)  # [A - 1]
        seen = op.Less(op.count(size(op, tree.ids, 1)), op.Unsqueeze(n_keys, op.shape(1)))
        keys = op.Compress(
            op.Reshape(op.Gather(packed.node, chunks.row), op.shape(-1)),
            op.Reshape(seen, op.shape(-1)),
        )  # into the packed line, chunk after chunk
        n_chunks = op.Add(size(op, n_keys, 0), op.shape(1))  # A: with the spare one
        # enough to reach the end of the longest chunk
        least = op.Add(op.Mul(op.Sub(tiles, op.shape(1)), op.int64(TILE)), op.shape(1))
        c = op.Max(divide_up(op, n_queries, n_chunks), least)
        k = op.Add(divide_up(op, size(op, keys, 0), n_chunks), op.shape(1))  # at least one spare
        end, end_of_keys = op.Mul(n_chunks, c), op.Mul(n_chunks, k)
        self._spare = op.Concat(op.shape(0), op.Sub(end, n_queries), axis=0)
        spare_keys = op.Concat(op.shape(0), op.Sub(end_of_keys, size(op, keys, 0)), axis=0)
        self._keys = op.Pad(keys, spare_keys, op.int64(0))
        self._queries, self._key_lines = (
            op.Concat(n_chunks, x, op.shape(-1), axis=0) for x in (c, k)
        )
        starts = _starts(op, chunks.n_queries, end), _starts(op, n_keys, end_of_keys)
        self._mask = op.Cast(op.Concat(n_keys, op.shape(1), *starts, axis=0), to=INT32)

    def __call__(
        self, query: ir.Value, key: ir.Value, value: ir.Value, *, n_head: int, scale: float
    ) -> ir.Value:
        """See `Attention`."""
        op = self._op
        attended = op.contrib(
            "MultiHeadAttention",
            op.Reshape(query, self._queries),  # [A, C, H]
            op.Reshape(op.Gather(key, self._keys), self._key_lines),  # [A, K, H]
            op.Reshape(op.Gather(value, self._keys), self._key_lines),
            None,
            self._mask,
            num_heads=n_head,
            scale=scale,
            unidirectional=1,
        )  # [A, C, H]
        width = op.Shape(query, start=1, end=2)
        return op.Reshape(attended, op.Concat(op.shape(-1), width, axis=0))

    def lengthened(self, line: ir.Value) -> ir.Value:
        """See `Attention`."""
        return self._op.Pad(line, self._spare, self._op.int64(0))


def _starts(op: Ops, n: ir.Value, end: ir.Value) -> ir.Value:
    """Where each chunk begins, the spare one included, and where the line ends. [A + 1]."""
    return op.Concat(op.shape(0), op.CumSum(n, op.int64(0)), end, axis=0)
