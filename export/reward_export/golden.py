"""Golden rows: a few real rows with PyTorch's rewards, by which a server is checked later.

The exporter compares on its own machine. The server may have another processor, another provider
or another ONNX Runtime, and the files may have been damaged on their way: a server that gives
these rewards for these rows computes the model that was exported.
"""

import numpy as np
from numpy.typing import NDArray

from reward_contract import CONTRACT
from reward_contract.facts import Golden
from reward_export.checkpoint import Checkpoint
from reward_export.conversations import conversations
from reward_text import Tokenizer

SHORT = (8, 40, 120)
"""Tokens of golden rows for heartbeats; besides them there are an empty and a full one."""


def golden_rows(max_tokens: int = CONTRACT.max_tokens) -> list[NDArray[np.int32]]:
    """The empty text, and ends of real conversations, `SHORT` and full; int32 [S] each.

    Args:
        max_tokens: the window, which the last row fills.
    """
    tokenizer = Tokenizer()
    texts = ["\n".join(dialogue.turns) for dialogue in conversations()]
    long = [row for row in map(tokenizer.encode, texts) if len(row) == CONTRACT.max_tokens]
    short = [row[-n:] for n, row in zip(SHORT, long, strict=False) if n < max_tokens]
    full = np.concatenate(long)[-max_tokens:]  # a window may be longer than any conversation
    return [np.zeros(0, np.int32), *short, full]


def golden(
    checkpoint: Checkpoint, tolerance: float, max_tokens: int = CONTRACT.max_tokens
) -> Golden:
    """The golden rows with the checkpoint's own rewards.

    Args:
        checkpoint: computes them in PyTorch, float32.
        tolerance: largest difference that a server may show.
        max_tokens: the window.
    """
    rows = golden_rows(max_tokens)
    ids = np.full((len(rows), max_tokens), CONTRACT.pad_token_id, np.int32)
    for row, found in zip(ids, rows, strict=True):
        row[: len(found)] = found
    rewards = checkpoint.rewards(ids)[:, 0]
    return Golden(
        tuple(tuple(map(int, row)) for row in rows),
        tuple(map(float, rewards)),
        float(tolerance),
        max_tokens,
    )
