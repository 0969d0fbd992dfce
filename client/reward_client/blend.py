"""Several models' rankings of the same candidates, blended into one."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from reward_client.errors import InvalidInputError
from reward_client.results import RankedCandidate, Ranking
from reward_text import Calibration

Weights = dict[str, float]


def checked_weights(models: Mapping[str, float]) -> Weights:
    """The weights scaled to add up to 1, in the order given.

    Raises:
        InvalidInputError: no model has a weight above 0, or a weight is negative or not finite.
    """
    if not isinstance(models, Mapping):
        raise InvalidInputError(
            f"models is {type(models).__name__}, not a mapping of names to weights, such as "
            '{"retry": 0.7, "length": 0.3}'
        )
    for name, weight in models.items():
        if not isinstance(weight, int | float) or not (weight >= 0 and math.isfinite(weight)):
            shown = weight if isinstance(weight, int | float) else type(weight).__name__
            raise InvalidInputError(
                f"the weight of the model {name!r} is {shown}; weights are finite numbers of at "
                "least 0"
            )
    largest = max(models.values(), default=0.0)
    if not largest > 0:
        raise InvalidInputError(
            f"none of {len(models)} models has a weight above 0; a mean needs at least one"
        )
    shares = {name: weight / largest for name, weight in models.items()}  # whose sum is finite
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items()}


def blended(weights: Weights, rankings: Mapping[str, Ranking]) -> Ranking:
    """One ranking by the weighted mean of the models' probabilities.

    A probability, unlike a raw reward, means the same for every model, so the mean for a
    candidate does not depend on the other candidates. A candidate's `probability` is that mean,
    and its `reward` is the mean's log odds, log(p / (1 - p)), which tell candidates apart even if
    their probabilities are close to 0 or 1. A single model keeps its order.

    Args:
        weights: from `checked_weights`. A model with weight 0 does not count.
        rankings: rankings of the same candidates, by model name.

    Returns:
        The ranking, best first; equal candidates in the order of the input, NaN last.
    """
    by_index = {
        name: sorted(one, key=lambda one: one.index)
        for name, one in rankings.items()
        if weights[name] > 0
    }
    rewards = log_odds(weights, rankings)
    probabilities = Calibration().probabilities(rewards)
    rows = list(zip(*by_index.values(), strict=True))
    order = np.argsort(-rewards, kind="stable").tolist()
    candidates = tuple(
        RankedCandidate(
            rows[i][0].text,
            float(rewards[i]),
            i,
            max(one.n_tokens for one in rows[i]),
            any(one.is_truncated for one in rows[i]),
            float(probabilities[i]),
        )
        for i in order
    )
    return Ranking(candidates, None, of_model=rankings)


def log_odds(weights: Weights, rankings: Mapping[str, Ranking]) -> NDArray[np.float64]:
    """The log odds of the weighted mean of probabilities, in the order of the input. -> [n]."""
    accepted, refused = [], []
    for name, weight in weights.items():
        if weight > 0:
            model = rankings[name].model
            calibration = model.usage.calibration if model else Calibration()
            logits = calibration.logits(rankings[name].rewards)
            # log(weight * probability), which does not round to 0 however small it is
            with np.errstate(invalid="ignore"):  # a candidate without a reward stays NaN
                accepted.append(math.log(weight) - np.logaddexp(0.0, -logits))
                refused.append(math.log(weight) - np.logaddexp(0.0, logits))
    with np.errstate(invalid="ignore"):
        odds = np.logaddexp.reduce(accepted) - np.logaddexp.reduce(refused)
    return np.asarray(odds, np.float64)
