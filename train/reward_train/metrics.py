"""How good rewards are, from rewards and labels alone."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reward_export.ranks import ranks

N_BINS = 10  # of the calibration error


def roc_auc(rewards: ArrayLike, labels: ArrayLike) -> float:
    """How often an accepted row has a higher reward than one that is not accepted.

    >>> roc_auc([3.0, 1.0, 2.0, 1.0], [1, 1, 0, 0])
    0.625

    Args:
        rewards: [n]; ties count half.
        labels: [n], 0 or 1; if all are alike, the result is NaN.
    """
    values, positive = np.asarray(rewards), np.asarray(labels) == 1
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    above = ranks(values)[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(above / (n_positive * n_negative))


def calibration_error(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Expected calibration error: how far acceptance is from its probability, in ten bins.

    >>> round(calibration_error([0.05, 0.95, 0.95], [0, 1, 0]), 3)
    0.317

    Source: Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning" (2015).
    """
    p, y = np.asarray(probabilities, np.float64), np.asarray(labels, np.float64)
    bins = np.minimum((p * N_BINS).astype(int), N_BINS - 1)
    gaps = [abs((p[bins == b] - y[bins == b]).sum()) for b in range(N_BINS)]
    return float(sum(gaps) / len(p))


def pairwise_accuracy(groups: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> float:
    """How often an accepted row beats one of its own group that is not; ties count half.

    Args:
        groups: rewards and labels of each; the result is a mean over those with both labels.
    """
    found = [roc_auc(rewards, labels) for rewards, labels in groups]
    known = [one for one in found if not np.isnan(one)]
    return float(np.mean(known)) if known else float("nan")


def sigmoid(rewards: ArrayLike) -> NDArray[np.float64]:
    """The probability that a reward, which is a logit, stands for."""
    return 1 / (1 + np.exp(-np.asarray(rewards, np.float64)))
