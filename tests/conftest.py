import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from reward_contract import MODEL_NAME
from reward_export.checkpoint import load
from reward_export.export import ExportOptions, export
from reward_export.random_checkpoint import random_checkpoint
from reward_serve.server import ServerOptions, TritonServer

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "model_repository" / MODEL_NAME / "config.pbtxt"


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, 64 wide, the real vocabulary and positions."""
    folder = tmp_path_factory.mktemp("checkpoint")
    return random_checkpoint(folder, n_layer=2, n_head=4, n_embd=64)


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


@pytest.fixture(scope="session")
def repository(checkpoint_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checked-in repository with the checkpoint published as version 1."""
    folder = tmp_path_factory.mktemp("repository")
    (folder / MODEL_NAME).mkdir()
    shutil.copy2(CONFIG, folder / MODEL_NAME)
    export(ExportOptions(str(checkpoint_folder), folder), say=print)
    return folder


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[TritonServer]:
    """A real tritonserver with the reward model."""
    options = ServerOptions(repository, grpc_port=0, http_port=0, metrics_port=0)
    with TritonServer(options) as server:
        yield server
