"""The checkpoint that a suite measures."""

from pathlib import Path

from reward_bench.suite import SHAPES, Setting
from reward_export.random_checkpoint import random_checkpoint


def checkpoint_of(setting: Setting, folder: Path) -> str:
    """Hub id or folder: the checkpoint given, or random weights that are written to the folder."""
    if setting.checkpoint:
        return setting.checkpoint
    n_layer, n_head, n_embd = SHAPES[setting.shape]
    return str(
        random_checkpoint(folder, n_layer=n_layer, n_head=n_head, n_embd=n_embd, seed=setting.seed)
    )
