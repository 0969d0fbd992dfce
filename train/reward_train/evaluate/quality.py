"""How good choices are, and how alike two ways of scoring, from rewards alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reward_client.results import Rewards
from reward_export.ranks import ranks, spearman

SIZES = (2, 4, 8, 16)
"""N of best-of-N."""

DRAWS = 1000  # of the bootstrap
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Scored:
    """A group with its rewards.

    Attributes:
        rewards: of its candidates, float32 [n].
        best: index of the one that should win.
    """

    rewards: Rewards
    best: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over groups.

    Attributes:
        mean: of all.
        low: end of the 95 % interval, by bootstrap over groups.
        high: its other end.
        n_groups: that it is a mean of.
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
        pairwise: how often it beats one of the others.
        reciprocal_rank: mean of one over its place among all.
    """

    first_of: dict[int, Estimate]
    pairwise: Estimate
    reciprocal_rank: Estimate


@dataclass(frozen=True, slots=True)
class Agreement:
    """How alike two ways of scoring the same groups are.

    Attributes:
        same_first: by N, how often both choose the same of a group's first N candidates.
        spearman: rank correlation of all rewards.
        max_difference: of a reward.
        mean_difference: of a reward.
    """

    same_first: dict[int, float]
    spearman: float
    max_difference: float
    mean_difference: float


def first_of(group: Scored, n: int) -> float:
    """How likely the best comes first among itself and n - 1 of the others, drawn by chance.

    All draws are counted, not a sample of them: with `t` of the others as good and `b` worse,
    k ties are drawn in C(t, k) C(b, n-1-k) of C(t + b + better, n-1) ways. Among ties the first
    place is shared.

    >>> first_of(Scored(np.array([2.0, 3.0, 1.0, 2.0], np.float32), best=0), 2)
    0.5
    """
    own, others = group.rewards[group.best], np.delete(group.rewards, group.best)
    ties, below = int((others == own).sum()), int((others < own).sum())
    ways = sum(
        comb(ties, k) * comb(below, n - 1 - k) / (k + 1) for k in range(min(ties, n - 1) + 1)
    )
    return ways / comb(len(others), n - 1)


def quality(groups: Sequence[Scored], *, seed: int = 0) -> Quality:
    """Figures of groups, with intervals whose draws have this seed.

    An N counts groups of at least as many candidates, and is left out where there are none.
    """
    by_size = {n: [one for one in groups if len(one.rewards) >= n] for n in SIZES}
    return Quality(
        {
            n: _estimate(chosen, lambda one, n=n: first_of(one, n), seed)  # type: ignore[misc]
            for n, chosen in by_size.items()
            if chosen
        },
        _estimate(groups, _pairwise, seed),
        _estimate(groups, _reciprocal_rank, seed),
    )


def agreement(one: Sequence[Scored], other: Sequence[Scored]) -> Agreement:
    """Two ways of scoring the same groups, in the same order."""
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
    """All rewards, in order."""
    return np.concatenate([one.rewards for one in groups])


def _pairwise(group: Scored) -> float:
    n_below = ranks(group.rewards)[group.best] - 1  # ties count half
    return float(n_below / (len(group.rewards) - 1))


def _reciprocal_rank(group: Scored) -> float:
    """Of a tie, the mean over its places."""
    own = group.rewards[group.best]
    above, alike = int((group.rewards > own).sum()), int((group.rewards == own).sum())
    return float(np.mean(1 / np.arange(above + 1, above + alike + 1)))


def _estimate(groups: Sequence[Scored], figure: Callable[[Scored], float], seed: int) -> Estimate:
    values = np.array([figure(group) for group in groups])
    rng = np.random.default_rng(seed)
    means = [rng.choice(values, len(values)).mean() for _ in range(DRAWS)]
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(values.mean()), float(low), float(high), len(values))
