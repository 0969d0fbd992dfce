"""Rewards that PyTorch gave once, to notice a `transformers` or torch that gives others.

Earlier releases of `transformers` scored other positions; the exporter, which compares with the
installed release, would follow it.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from reward_contract import CONTRACT
from reward_export.checkpoint import Checkpoint, load
from reward_text import Tokenizer

CHECKPOINT = Path(__file__).parents[2] / "checkpoints" / "chitchat"
GOLDEN = json.loads(Path(__file__).with_name("golden_rewards.json").read_text("utf-8"))
TOLERANCE = 1e-4  # differences between processors and torch releases are a hundredth of it


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load(str(CHECKPOINT))


@pytest.fixture(scope="module")
def ids() -> np.ndarray:
    return Tokenizer().encode_rows([item["text"] for item in GOLDEN])


def test_rewards_are_those_of_the_day_they_were_written(
    checkpoint: Checkpoint, ids: np.ndarray
) -> None:
    wanted = [item["reward"] for item in GOLDEN]
    assert len(wanted) == 10
    np.testing.assert_allclose(checkpoint.rewards(ids)[:, 0], wanted, rtol=0, atol=TOLERANCE)


def test_other_scored_positions_would_be_noticed(checkpoint: Checkpoint, ids: np.ndarray) -> None:
    """Earlier releases scored the position before the first pad, or the row's end."""
    pads = ids == CONTRACT.pad_token_id
    before_first_pad = np.where(pads.any(1), pads.argmax(1) - 1, ids.shape[1] - 1)
    last_real = np.where(pads.all(1), 0, ids.shape[1] - 1 - (~pads)[:, ::-1].argmax(1))
    by_position = position_rewards(checkpoint, ids)
    rows = np.arange(len(ids))
    ours = by_position[rows, last_real]
    np.testing.assert_allclose(ours, [item["reward"] for item in GOLDEN], rtol=0, atol=TOLERANCE)
    for other in (before_first_pad, np.full(len(ids), -1)):
        differences = np.abs(by_position[rows, other] - ours)
        assert (differences > 100 * TOLERANCE).sum() >= 3


def position_rewards(checkpoint: Checkpoint, ids: np.ndarray) -> np.ndarray:
    """The score of every position. -> float32 [B, S]"""
    with torch.inference_mode():
        hidden = checkpoint.model.transformer(torch.from_numpy(ids.astype(np.int64)))[0]
        return checkpoint.model.score(hidden)[:, :, 0].numpy()
