"""A model whose rewards a test can predict: the last token's id."""

import numpy as np

from reward_client import Tokenizer


def last_token(ids: np.ndarray) -> np.ndarray:
    """Rewards [B] of ids [B, S]; NaN for texts that end in "!"."""
    lengths = (ids != 50256).sum(axis=1)
    last = ids[np.arange(len(ids)), np.maximum(lengths - 1, 0)]
    return np.where(last == 0, np.nan, last)  # token 0 is "!"


def wanted(*texts: str) -> list[float]:
    return [float(Tokenizer().encode(text)[-1]) for text in texts]
