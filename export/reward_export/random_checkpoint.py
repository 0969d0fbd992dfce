"""A checkpoint with random weights, for demos, tests and benchmarks.

    python -m reward_export.random_checkpoint FOLDER [--layers 4 --heads 4 --hidden 128]

Its shapes, files and loading are those of a real checkpoint; its rewards are meaningless.
"""

import argparse
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2ForSequenceClassification

from reward_contract import CONTRACT


def random_checkpoint(
    folder: Path,
    *,
    n_layer: int = 4,
    n_head: int = 4,
    n_embd: int = 128,
    seed: int = 0,
    **overrides: object,
) -> Path:
    """Save a `GPT2ForSequenceClassification` with random weights, and return its folder.

    Args:
        folder: where to save it; made if missing.
        n_layer: number of blocks. GPT-2 small has 12, medium 24.
        n_head: heads of each block. GPT-2 small has 12, medium 16.
        n_embd: hidden size. GPT-2 small has 768, medium 1024.
        seed: seed of the weights.
        overrides: further fields of `GPT2Config`.
    """
    config = GPT2Config(n_layer=n_layer, n_head=n_head, n_embd=n_embd)
    config.update({"num_labels": 1, "pad_token_id": CONTRACT.pad_token_id, **overrides})
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = GPT2ForSequenceClassification(config)
        # a fresh GPT-2 has biases of zero, norms of one and rewards that hardly differ, all of
        # which would hide mistakes
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.02)
            elif ".ln_" in name:
                torch.nn.init.normal_(parameter, mean=1.0, std=0.1)
        torch.nn.init.normal_(model.score.weight, std=n_embd**-0.5)
    model.save_pretrained(folder)
    return folder


def main() -> None:
    """Save a checkpoint in the folder given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    random_checkpoint(
        given.folder,
        n_layer=given.layers,
        n_head=given.heads,
        n_embd=given.hidden,
        seed=given.seed,
    )


if __name__ == "__main__":
    main()
