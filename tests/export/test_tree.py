"""The scoring graph's steps 1 to 3, and its stretches, run one by one on hand-made batches."""

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
    pytest.param([[1, 2, 3], [1, 2, 4]], [1, 2, 3, 4], id="shared prefix"),
    pytest.param([[1, 2], [1, 2], [1, 2]], [1, 2], id="duplicates"),
    pytest.param(
        [[1, PAD, PAD], [1, 2, 3], [1, 2, PAD]], [1, 2, 3], id="a row that is a prefix of another"
    ),
    pytest.param([[9, 2], [1, 2], [9, 3]], [1, 2, 9, 2, 3], id="any order"),
    pytest.param(
        [[1, PAD, 3], [1, PAD, PAD], [1, PAD, 4]],
        [1, PAD, 3, 4],
        id="the pad token inside is shared with tokens, not with padding",
    ),
    pytest.param([[PAD, PAD], [PAD, 2]], [PAD, 2], id="pads alone"),
    pytest.param(
        [[1, 2, 3], [1, 5, 3], [1, 5, 6], [1, 2, 7]],
        [1, 2, 3, 7, 5, 3, 6],
        id="a tree of two branches",
    ),
]


def packed_tree(run: Run, ids: object) -> Arrays:
    """Tokens, positions, and for each row of the batch its indices into them and its length."""

    def steps(op: Ops, rows: Rows) -> list[ir.Value]:
        tree = prefix_tree(op, rows)
        packed = pack(op, tree)
        node = op.Gather(packed.node, tree.which)
        return [packed.tokens, packed.positions, node, rows.length]

    return run(steps, ids)


def check_tree(ids: object, found: Arrays) -> None:
    """Check that each token is where its row and position say, and that none is there twice."""
    tokens, positions, node, length = found
    ids = np.asarray(ids)
    prefixes = set()
    for row, n in enumerate(length.tolist()):
        assert tokens[node[row, :n]].tolist() == ids[row, :n].tolist()
        assert positions[node[row, :n]].tolist() == list(range(n))
        prefixes |= {ids[row, : end + 1].tobytes() for end in range(n)}
    assert len(tokens) == len(prefixes)


@pytest.mark.parametrize(("ids", "tokens"), BATCHES)
def test_the_tree_and_its_packed_tokens(run: Run, ids: list[list[int]], tokens: list[int]) -> None:
    """Each token is packed once, in the order of the sorted rows, and found by all rows."""
    found = packed_tree(run, ids)
    assert found[0].tolist() == tokens
    check_tree(ids, found)


@pytest.mark.parametrize("n_rows", [1, 2, 40, 700])
@pytest.mark.parametrize("alphabet", [2, 3, 40])
def test_the_tree_finds_all_that_any_rows_share_in_any_order(
    run: Run, n_rows: int, alphabet: int
) -> None:
    rng = np.random.default_rng(n_rows + alphabet)
    ids = rng.integers(0, alphabet, (n_rows, 8))
    ids = np.where(np.arange(8) < rng.integers(0, 9, (n_rows, 1)), ids, PAD).astype(np.int32)
    check_tree(ids, packed_tree(run, ids))


def test_stretches_begin_where_a_row_leaves_the_tree(run: Run) -> None:
    def steps(op: Ops, rows: Rows) -> list[ir.Value]:
        found = fresh_stretches(op, prefix_tree(op, rows))
        return [found.row, found.begin, found.n_queries, found.position]

    ids = [[1, 2, 3, 4], [1, 2, 9, PAD], [1, 2, 3, 4], [8, PAD, PAD, PAD]]
    row, begin, n_queries, position = run(steps, ids)
    assert row.tolist() == [0, 1, 2]  # one for each of the three rows that differ
    assert begin.tolist() == [0, 4, 5]
    assert n_queries.tolist() == [4, 1, 1]
    assert position.tolist() == [0, 2, 0]


def test_long_stretches_are_cut_into_pieces(run: Run) -> None:
    def steps(op: Ops, rows: Rows) -> list[ir.Value]:
        pieces = cut(op, fresh_stretches(op, prefix_tree(op, rows)), op.shape(3))
        return [pieces.row, pieces.begin, pieces.n_queries, pieces.position]

    ids = [[1, 2, 3, 4, 5, 6, 7], [1, 2, 9, 9, 9, PAD, PAD], [8, 8, 8, 8, PAD, PAD, PAD]]
    row, begin, n_queries, position = run(steps, ids)
    assert row.tolist() == [0, 0, 0, 1, 2, 2]
    assert begin.tolist() == [0, 3, 6, 7, 10, 13]
    assert n_queries.tolist() == [3, 3, 1, 3, 3, 1]
    assert position.tolist() == [0, 3, 6, 2, 0, 3]


def test_one_token_of_each_row_is_pooled_its_last(run: Run) -> None:
    def steps(op: Ops, rows: Rows) -> list[ir.Value]:
        tree = prefix_tree(op, rows)
        packed, last = pack(op, tree), last_tokens(op, tree)
        pooled = pooled_tokens(op, tree, packed)
        return [packed.tokens, pooled, last.n_queries, last.position, tree.which]

    ids = [[1, 2, 3], [1, 2, PAD], [1, 2, 3], [PAD, PAD, PAD], [4, PAD, 5]]
    tokens, pooled, n_queries, position, which = run(steps, ids)
    assert tokens.tolist() == [1, 2, 3, 4, PAD, 5, PAD]
    assert pooled.tolist() == [1, 2, 5, 6]  # of the rows that differ, in order
    assert which.tolist() == [1, 0, 1, 3, 2]  # which of them each row sent is
    assert n_queries.tolist() == [1, 1, 1, 1]
    assert position.tolist() == [1, 2, 2, 0]
