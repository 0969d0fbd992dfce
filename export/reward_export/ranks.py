"""Ranks, and how similar two rankings are."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def ranks(values: ArrayLike) -> NDArray[np.float64]:
    """The rank of each value in ascending order, from 1; equal values share their mean rank.

    >>> ranks([0.5, 2.0, 0.5]).tolist()
    [1.5, 3.0, 1.5]
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    found: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return found


def spearman(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Spearman's rank correlation of [n] and [n]; NaN if all values of one are equal."""
    with np.errstate(invalid="ignore"):
        return float(np.corrcoef(ranks(x), ranks(y))[0, 1])
