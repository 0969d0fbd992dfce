"""The whole graph compared with the card's snippet in PyTorch, and with itself in other batches."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from reward_contract import INPUT_IDS, REWARD
from reward_export.attention import BLOCK
from reward_export.checkpoint import Checkpoint, load
from reward_export.precision import LOOPED, PADDED, PRECISIONS, Form

PAD, VOCAB, N_POSITIONS = 50256, 50257, 1024
Ids = NDArray[np.int32]


class Scorer:
    """A checkpoint in PyTorch, and its graph on ONNX Runtime."""

    def __init__(self, checkpoint: Checkpoint, form: Form, path: Path) -> None:
        self.reference = checkpoint.rewards
        ir.save(PRECISIONS["fp32"].build(checkpoint, form), path)
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def rewards(self, ids: Ids) -> NDArray[np.float32]:
        return self.session.run([REWARD.name], {INPUT_IDS.name: ids})[0]


@pytest.fixture(scope="module", params=[LOOPED, PADDED], ids=lambda form: form.name)
def scorer(
    request: pytest.FixtureRequest,
    checkpoint_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Scorer:
    """A scorer with each form of attention."""
    folder = tmp_path_factory.mktemp("graph")
    return Scorer(load(str(checkpoint_folder)), request.param, folder / "model.onnx")


@st.composite
def batches(draw: st.DrawFn, *, max_rows: int = 32, max_length: int = 96) -> Ids:
    """Rows from few tokens, the pad among them, so that prefixes are shared in every way."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    n_rows, width = draw(st.integers(1, max_rows)), draw(st.integers(1, max_length))
    tokens = rng.choice([0, 1, 2, 777, PAD, VOCAB - 2], draw(st.integers(1, 6)), replace=False)
    ids = rng.choice(tokens, (n_rows, width))
    for row in range(1, n_rows):  # copies a random prefix of an earlier row
        if draw(st.booleans()):
            cut = rng.integers(0, width + 1)
            ids[row, :cut] = ids[rng.integers(0, row), :cut]
    ends = rng.integers(0, width + 1, (n_rows, 1))
    return np.where(np.arange(width) < ends, ids, PAD).astype(np.int32)


@settings(max_examples=60)
@given(ids=batches())
def test_rewards_are_those_of_pytorch(scorer: Scorer, ids: Ids) -> None:
    np.testing.assert_allclose(scorer.rewards(ids), scorer.reference(ids), rtol=0, atol=1e-5)


@settings(max_examples=40)
@given(ids=batches(max_rows=12), pick=st.integers(0, 11))
def test_a_reward_does_not_depend_on_batch_mates(scorer: Scorer, ids: Ids, pick: int) -> None:
    pick %= len(ids)
    alone = scorer.rewards(ids[pick : pick + 1])
    np.testing.assert_allclose(scorer.rewards(ids)[pick], alone[0], rtol=0, atol=1e-5)


@settings(max_examples=40)
@given(
    ids=batches(max_rows=12), bad=st.sampled_from([-1, VOCAB, -(2**31), 2**31 - 1]), data=st.data()
)
def test_a_bad_id_costs_its_own_row_alone(
    scorer: Scorer, ids: Ids, bad: int, data: st.DataObject
) -> None:
    row = data.draw(st.integers(0, len(ids) - 1))
    position = data.draw(st.integers(0, ids.shape[1] - 1))
    poisoned = ids.copy()
    poisoned[row, position] = bad
    found, wanted = scorer.rewards(poisoned), scorer.rewards(ids)
    assert np.isnan(found[row]).all()
    np.testing.assert_allclose(
        np.delete(found, row, axis=0), np.delete(wanted, row, axis=0), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("n_rows", [1, 2, 7, 64, 128])
def test_batches_of_real_sizes(scorer: Scorer, n_rows: int) -> None:
    rng = np.random.default_rng(n_rows)
    ids = rng.integers(0, VOCAB, (n_rows, 72)).astype(np.int32)
    ids[: n_rows // 2, :40] = ids[0, :40]
    np.testing.assert_allclose(scorer.rewards(ids), scorer.reference(ids), rtol=0, atol=1e-5)


@pytest.mark.parametrize("n_tokens", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 1, 3 * BLOCK - 1])
def test_lines_of_any_length_are_cut_into_blocks(scorer: Scorer, n_tokens: int) -> None:
    rng = np.random.default_rng(n_tokens)
    ids = rng.integers(0, PAD, (-(-n_tokens // 60), 60)).astype(np.int32)
    ids[:, 0] = np.arange(len(ids))  # no two rows share a token
    ids[-1, 60 + n_tokens - ids.size :] = PAD
    np.testing.assert_allclose(scorer.rewards(ids), scorer.reference(ids), rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 127, 128, 129, 255, 256, 257, 1023, 1024])
def test_lengths_up_to_the_last_position(scorer: Scorer, length: int) -> None:
    rng = np.random.default_rng(length)
    ids = rng.integers(0, VOCAB, (2, length)).astype(np.int32)
    ids[1, length // 2 :] = PAD
    np.testing.assert_allclose(scorer.rewards(ids), scorer.reference(ids), rtol=0, atol=1e-5)


def test_a_row_longer_than_the_position_table_answers_nan_alone(scorer: Scorer) -> None:
    ids = np.full((2, N_POSITIONS + 1), 7, np.int32)
    ids[1, 5:] = PAD
    found = scorer.rewards(ids)
    assert np.isnan(found[0, 0])
    np.testing.assert_allclose(found[1:], scorer.reference(ids[1:, :5]), rtol=0, atol=1e-5)


def test_padding_beyond_the_position_table_is_free(scorer: Scorer) -> None:
    ids = np.full((1, N_POSITIONS + 500), PAD, np.int32)
    ids[0, :3] = [1, 2, 3]
    wanted = scorer.reference(ids[:, :3])
    np.testing.assert_allclose(scorer.rewards(ids), wanted, rtol=0, atol=1e-5)
