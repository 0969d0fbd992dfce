from pathlib import Path

import numpy as np
import pytest
import torch

from reward_export.checkpoint import load
from reward_export.random_checkpoint import random_checkpoint


@pytest.fixture(scope="session")
def outlier_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three layers, 128 wide, with a few channels tens of times larger, as in real GPT-2."""
    source = random_checkpoint(
        tmp_path_factory.mktemp("benign"), n_layer=3, n_head=4, n_embd=128, seed=1
    )
    model = load(str(source)).model
    rng = np.random.default_rng(1)
    with torch.no_grad():
        for block in model.transformer.h:
            for norm in (block.ln_1, block.ln_2):
                norm.weight[rng.choice(128, 3, replace=False)] *= 30
            block.attn.c_attn.weight[:, 256 + rng.choice(128, 3, replace=False)] *= 20
    folder = tmp_path_factory.mktemp("outliers")
    model.save_pretrained(folder)
    return folder
