"""How good choices are, and how alike two ways of scoring are, from rewards alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reward_client.results import Rewards
from reward_export.ranks import ranks, spearman

SIZES = (2, 4, 8, 16)
"""The values of N in best-of-N."""

DRAWS = 1000  # of the bootstrap
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Scored:
    """A group with its rewards.

    Attributes:
        rewards: of its candidates, float32 [n].
        best: index of the one that should win.
        worst: index of the one that must not win, or None if none is known.
    """

    rewards: Rewards
    best: int
    worst: int | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over groups.

    Attributes:
        mean: over all groups.
        low: lower end of the 95 % interval, by bootstrap over groups.
        high: its upper end.
        n_groups: how many groups it is a mean of.
    """

    mean: float
    low: float
    high: float
    n_groups: int


@dataclass(frozen=True, slots=True)
class Quality:
    """How well the best is told from the others.

    Attributes:
        first_of: by N, how often the best comes first among itself and N - 1 of the others.
        in_first_two: by N, how often it comes first or second.
        worst_rejected: by N, how often the worst does not come first among itself and N - 1 of
            the others; {} if no group names a worst.
        pairwise: how often it beats one of the others.
        reciprocal_rank: mean of 1 / its place among all.
    """

    first_of: dict[int, Estimate]
    in_first_two: dict[int, Estimate]
    worst_rejected: dict[int, Estimate]
    pairwise: Estimate
    reciprocal_rank: Estimate


@dataclass(frozen=True, slots=True)
class Agreement:
    """How alike two ways of scoring the same groups are.

    Attributes:
        same_first: by N, how often both choose the same of a group's first N candidates.
        spearman: rank correlation of all rewards.
        max_difference: the largest difference between two rewards of a candidate.
        mean_difference: the mean of these differences.
    """

    same_first: dict[int, float]
    spearman: float
    max_difference: float
    mean_difference: float


def within(group: Scored, index: int, n: int, places: int = 1) -> float:
    """How likely a candidate is among the first places of itself and n - 1 random others.

    All draws are counted, not a sample of them: of the others, j better ones, k equal ones and
    n - 1 - j - k worse ones are drawn in C(better, j) C(alike, k) C(worse, n-1-j-k) of
    C(others, n-1) ways, and equal ones share the places after the better ones.

    >>> within(Scored(np.array([2.0, 3.0, 1.0, 2.0], np.float32), best=0), 0, 2)
    0.5

    Args:
        group: the rewards.
        index: of the candidate.
        n: how many candidates to choose from, at most all of the group.
        places: how many places count as first.
    """
    own, others = group.rewards[index], np.delete(group.rewards, index)
    better, alike = int((others > own).sum()), int((others == own).sum())
    worse = len(others) - better - alike
    likely = sum(
        comb(better, j)
        * comb(alike, k)
        * comb(worse, n - 1 - j - k)
        * min(places - j, k + 1)
        / (k + 1)
        for j in range(min(better, places - 1, n - 1) + 1)
        for k in range(min(alike, n - 1 - j) + 1)
    )
    return likely / comb(len(others), n - 1)


def quality(groups: Sequence[Scored], *, seed: int = 0) -> Quality:
    """Figures of groups, with bootstrap intervals drawn from this seed.

    The figure for N counts groups of at least N candidates, and is left out if there are none.
    """
    with_worst = [one for one in groups if one.worst is not None]
    return Quality(
        _by_size(groups, lambda one, n: within(one, one.best, n), seed),
        _by_size(groups, lambda one, n: within(one, one.best, n, places=2), seed),
        _by_size(with_worst, lambda one, n: 1 - within(one, int(one.worst or 0), n), seed),
        _estimate(groups, _pairwise, seed),
        _estimate(groups, _reciprocal_rank, seed),
    )


def _by_size(
    groups: Sequence[Scored], figure: Callable[..., float], seed: int
) -> dict[int, Estimate]:
    found = {}
    for n in SIZES:
        chosen = [one for one in groups if len(one.rewards) >= n]
        if chosen:
            found[n] = _estimate(chosen, partial(figure, n=n), seed)
    return found


def agreement(one: Sequence[Scored], other: Sequence[Scored]) -> Agreement:
    """How alike two ways of scoring the same groups are; both in the same order."""
    same_first = {}
    for n in SIZES:
        same = [
            int(a.rewards[:n].argmax()) == int(b.rewards[:n].argmax())
            for a, b in zip(one, other, strict=True)
            if len(a.rewards) >= n
        ]
        if same:
            same_first[n] = float(np.mean(same))
    x, y = rewards_of(one), rewards_of(other)
    difference = np.abs(x - y)
    return Agreement(same_first, spearman(x, y), float(difference.max()), float(difference.mean()))


def rewards_of(groups: Sequence[Scored]) -> NDArray[Any]:
    """The rewards of all groups, in order."""
    return np.concatenate([one.rewards for one in groups])


def _pairwise(group: Scored) -> float:
    n_below = ranks(group.rewards)[group.best] - 1  # ties count half
    return float(n_below / (len(group.rewards) - 1))


def _reciprocal_rank(group: Scored) -> float:
    """1 / the best one's place; for a tie, the mean over its places."""
    own = group.rewards[group.best]
    above, alike = int((group.rewards > own).sum()), int((group.rewards == own).sum())
    return float(np.mean(1 / np.arange(above + 1, above + alike + 1)))


def _estimate(groups: Sequence[Scored], figure: Callable[[Scored], float], seed: int) -> Estimate:
    values = np.array([figure(group) for group in groups])
    rng = np.random.default_rng(seed)
    means = [rng.choice(values, len(values)).mean() for _ in range(DRAWS)]
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(values.mean()), float(low), float(high), len(values))
