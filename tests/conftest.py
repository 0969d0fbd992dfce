from pathlib import Path

import pytest

from reward_export.random_checkpoint import random_checkpoint


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, 64 wide, the real vocabulary and positions."""
    folder = tmp_path_factory.mktemp("checkpoint")
    return random_checkpoint(folder, n_layer=2, n_head=4, n_embd=64)
