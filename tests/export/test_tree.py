"""Steps 1 to 3 on hand-made batches, each run by ONNX Runtime on its own."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray

from reward_export.attention import cut, fresh_stretches, last_tokens
from reward_export.graph import pooled_tokens
from reward_export.ops import Ops, tensor_input
from reward_export.tree import Rows, admit, pack, prefix_tree

PAD = 50256
Arrays = list[NDArray[np.generic]]
Run = Callable[[Callable[[Ops, Rows], Sequence[ir.Value]], object], Arrays]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs `steps(op, rows)` on a batch, with a vocabulary of 50257 and 8 positions."""

    def run(steps: Callable[[Ops, Rows], Sequence[ir.Value]], ids: object) -> Arrays:
        op = Ops()
        given = tensor_input("ids", ir.DataType.INT32, ("batch", "sequence"))
        outputs = list(steps(op, admit(op, given, 50257, 8)))
        ir.save(op.model([given], outputs), tmp_path / "steps.onnx")
        session = onnxruntime.InferenceSession(
            str(tmp_path / "steps.onnx"), providers=["CPUExecutionProvider"]
        )
        return session.run(None, {"ids": np.array(ids, np.int32)})

    return run


@pytest.mark.parametrize(
    ("row", "length"),
    [
        pytest.param([5, 6, 7, PAD], 3, id="padded"),
        pytest.param([5, 6, 7, 8], 4, id="full"),
        pytest.param([PAD, PAD, PAD, PAD], 1, id="pads alone are scored at position 0"),
        pytest.param([5, PAD, 7, PAD], 3, id="the pad token inside counts"),
        pytest.param([PAD, 6, PAD, PAD], 2, id="and at the start"),
        pytest.param([0, PAD, PAD, PAD], 1, id="id 0 is a token"),
    ],
)
def test_length_runs_to_the_rightmost_token_that_is_not_the_pad(
    run: Run, row: list[int], length: int
) -> None:
    found, admitted = run(lambda _, rows: [rows.length, rows.admitted], [row])
    assert found.tolist() == [length]
    assert admitted.tolist() == [True]


@pytest.mark.parametrize(
    "row",
    [
        pytest.param([5, -1, 7, PAD, PAD, PAD, PAD, PAD, PAD], id="negative id"),
        pytest.param([5, 50257, 7, PAD, PAD, PAD, PAD, PAD, PAD], id="id beyond the vocabulary"),
        pytest.param([5, -(2**31), 7, PAD, PAD, PAD, PAD, PAD, PAD], id="smallest int32"),
        pytest.param([1, 2, 3, 4, 5, 6, 7, 8, 9], id="longer than the position table"),
    ],
)
def test_a_row_that_cannot_be_scored_is_set_aside_as_pads(run: Run, row: list[int]) -> None:
    mate = [5, 6] + [PAD] * 7
    ids, length, admitted = run(lambda _, r: [r.ids, r.length, r.admitted], [row, mate])
    assert admitted.tolist() == [False, True]
    assert length.tolist() == [1, 2]
    assert ids.tolist() == [[PAD, PAD], [5, 6]]


def test_positions_behind_the_longest_row_are_dropped(run: Run) -> None:
    (ids,) = run(lambda _, rows: [rows.ids], [[5, 6, PAD, PAD], [7, PAD, PAD, PAD]])
    assert ids.tolist() == [[5, 6], [7, PAD]]


def test_a_batch_without_positions_is_scored_as_pads(run: Run) -> None:
    ids, length = run(lambda _, rows: [rows.ids, rows.length], np.zeros((2, 0), np.int32))
    assert ids.tolist() == [[PAD], [PAD]]
    assert length.tolist() == [1, 1]


BATCHES = [
    pytest.param([[1, 2, 3], [1, 2, 4]], [[0, 0, 0], [0, 0, 1]], [1, 2, 3, 4], id="shared prefix"),
    pytest.param([[1, 2], [1, 2], [1, 2]], [[0, 0]] * 3, [1, 2], id="duplicates"),
    pytest.param(
        [[1, PAD, PAD], [1, 2, 3], [1, 2, PAD]],
        [[0, 0, 0], [0, 1, 1], [0, 1, 2]],
        [1, 2, 3],
        id="a row that is a prefix of another",
    ),
    pytest.param(
        [[9, 2], [1, 2], [9, 3]], [[0, 0], [1, 1], [0, 2]], [9, 2, 1, 2, 3], id="any order"
    ),
    pytest.param(
        [[1, PAD, 3], [1, PAD, PAD], [1, PAD, 4]],
        [[0, 0, 0], [0, 1, 1], [0, 0, 2]],
        [1, PAD, 3, 4],
        id="the pad token inside is shared with tokens, not with padding",
    ),
    pytest.param([[PAD, PAD], [PAD, 2]], [[0, 0], [0, 1]], [PAD, 2], id="pads alone"),
    pytest.param(
        [[1, 2, 3], [1, 5, 3], [1, 5, 6], [1, 2, 7]],
        [[0, 0, 0], [0, 1, 1], [0, 1, 2], [0, 0, 3]],
        [1, 2, 3, 5, 3, 6, 7],
        id="a tree of two branches",
    ),
]


@pytest.mark.parametrize(("ids", "owner", "tokens"), BATCHES)
def test_the_tree_and_its_packed_tokens(
    run: Run, ids: list[list[int]], owner: list[list[int]], tokens: list[int]
) -> None:
    """Each token belongs to the first row that has it, is packed once, and is found by all."""

    def steps(op: Ops, rows: Rows) -> list[ir.Value]:
        tree = prefix_tree(op, rows)
        packed = pack(op, rows, tree)
        return [tree.owner, packed.tokens, packed.positions, packed.node, rows.length]

    found_owner, packed, positions, node, length = run(steps, ids)
    assert packed.tolist() == tokens
    for row, n in enumerate(length.tolist()):
        assert found_owner[row, :n].tolist() == owner[row][:n]
        assert packed[node[row, :n]].tolist() == ids[row][:n]
        assert positions[node[row, :n]].tolist() == list(range(n))


def test_stretches_begin_where_a_row_leaves_the_tree(run: Run) -> None:
    def steps(op: Ops, rows: Rows) -> list[ir.Value]:
        found = fresh_stretches(op, rows, prefix_tree(op, rows))
        return [found.row, found.begin, found.n_queries, found.position]

    ids = [[1, 2, 3, 4], [1, 2, 9, PAD], [1, 2, 3, 4], [8, PAD, PAD, PAD]]
    row, begin, n_queries, position = run(steps, ids)
    assert row.tolist() == [0, 1, 3]  # the duplicate owns nothing
    assert begin.tolist() == [0, 4, 5]
    assert n_queries.tolist() == [4, 1, 1]
    assert position.tolist() == [0, 2, 0]


def test_long_stretches_are_cut_into_pieces(run: Run) -> None:
    def steps(op: Ops, rows: Rows) -> list[ir.Value]:
        pieces = cut(op, fresh_stretches(op, rows, prefix_tree(op, rows)), op.int64(3))
        return [pieces.row, pieces.begin, pieces.n_queries, pieces.position]

    ids = [[1, 2, 3, 4, 5, 6, 7], [1, 2, 9, 9, 9, PAD, PAD], [8, 8, 8, 8, PAD, PAD, PAD]]
    row, begin, n_queries, position = run(steps, ids)
    assert row.tolist() == [0, 0, 0, 1, 2, 2]
    assert begin.tolist() == [0, 3, 6, 7, 10, 13]
    assert n_queries.tolist() == [3, 3, 1, 3, 3, 1]
    assert position.tolist() == [0, 3, 6, 2, 0, 3]


def test_one_token_a_row_is_pooled_its_last(run: Run) -> None:
    def steps(op: Ops, rows: Rows) -> list[ir.Value]:
        packed = pack(op, rows, prefix_tree(op, rows))
        last = last_tokens(op, rows)
        return [packed.tokens, pooled_tokens(op, rows, packed), last.n_queries, last.position]

    ids = [[1, 2, 3], [1, 2, PAD], [1, 2, 3], [PAD, PAD, PAD], [4, PAD, 5]]
    tokens, pooled, n_queries, position = run(steps, ids)
    assert tokens.tolist() == [1, 2, 3, PAD, 4, PAD, 5]
    assert pooled.tolist() == [2, 1, 2, 3, 6]  # shared where the row's last token is
    assert n_queries.tolist() == [1, 1, 1, 1, 1]
    assert position.tolist() == [2, 1, 2, 0, 2]
