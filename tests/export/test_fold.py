"""Biases folded out of the graph: the model stays the same."""

from pathlib import Path

import numpy as np
import torch

from reward_export.checkpoint import load
from reward_export.fold import without_key_value_biases


def test_the_folded_weights_are_the_same_model_without_key_and_value_biases(
    checkpoint_folder: Path,
) -> None:
    checkpoint = load(str(checkpoint_folder))
    ids = np.random.default_rng(0).integers(0, 50257, (4, 40)).astype(np.int32)
    wanted = checkpoint.rewards(ids)
    weights = checkpoint.weights()
    folded = without_key_value_biases(weights, checkpoint.architecture.n_layer)
    name = "transformer.h.0.attn.c_attn.bias"
    _, key, value = np.split(folded[name], 3)
    assert np.split(weights[name], 3)[2].any(), "nothing to fold: the test shows nothing"
    assert not key.any()
    assert not value.any()
    checkpoint.model.load_state_dict({name: torch.from_numpy(w) for name, w in folded.items()})
    np.testing.assert_allclose(checkpoint.rewards(ids), wanted, rtol=0, atol=1e-5)
