"""Takes measurements that are compared with each other in turn, round by round."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

Spread = dict[str, float]


def interleaved(measures: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Take each measure once per round, in turn."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            found[name].append(measure())
    return found


def spread(values: Sequence[float]) -> Spread:
    """Median, smallest and largest over the rounds."""
    return {"median": float(np.median(values)), "min": min(values), "max": max(values)}


def ratio(over: Sequence[float], under: Sequence[float]) -> Spread:
    """The spread of one measurement over another, round by round."""
    return spread([a / b for a, b in zip(over, under, strict=True)])
