"""Golden rows: a few real rows with PyTorch's rewards, by which a server is trusted later.

The exporter compares on the machine that exports. What serves may be another processor, another
provider or another ONNX Runtime, and the files may have been damaged on their way: a server that
gives these rows these rewards computes the model that was exported.
"""

import numpy as np
from numpy.typing import NDArray

from reward_contract import CONTRACT
from reward_contract.facts import Golden
from reward_export.checkpoint import Checkpoint
from reward_export.conversations import conversations
from reward_text import Tokenizer

LENGTHS = (8, 40, 120, CONTRACT.max_tokens)
"""Tokens of the golden rows besides the empty one: short for heartbeats, full to reach it all."""


def golden_rows() -> list[NDArray[np.int32]]:
    """The rows: the empty text, and ends of real conversations, `LENGTHS` long. -> int32 [S]."""
    tokenizer = Tokenizer()
    texts = ["\n".join(dialogue.turns) for dialogue in conversations()]
    long = [row for row in map(tokenizer.encode, texts) if len(row) == CONTRACT.max_tokens]
    return [np.zeros(0, np.int32), *(row[-n:] for n, row in zip(LENGTHS, long, strict=False))]


def golden(checkpoint: Checkpoint, tolerance: float) -> Golden:
    """The golden rows with the checkpoint's own rewards.

    Args:
        checkpoint: computes them in PyTorch, float32.
        tolerance: largest difference that a server is held to.
    """
    rows = golden_rows()
    ids = np.full((len(rows), CONTRACT.max_tokens), CONTRACT.pad_token_id, np.int32)
    for row, found in zip(ids, rows, strict=True):
        row[: len(found)] = found
    rewards = checkpoint.rewards(ids)[:, 0]
    return Golden(
        tuple(tuple(map(int, row)) for row in rows), tuple(map(float, rewards)), float(tolerance)
    )
