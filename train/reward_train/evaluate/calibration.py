"""Calibrated probabilities: Platt's fit of a served model's rewards to held-out labels."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from reward_client.arguments import ClientArguments
from reward_client.client import RewardClient
from reward_client.errors import InvalidInputError
from reward_client.results import ModelInfo
from reward_text import Calibration, Context, context_of
from reward_train.errors import DataError, TrainError
from reward_train.labels import kind_of, label_of
from reward_train.metrics import calibration_error, roc_auc

ROWS_A_CALL = 512
_MALFORMED = (AttributeError, KeyError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A labelled row of a file.

    Attributes:
        context: a text, or messages.
        candidate: the reply.
        label: 1 accepted, 0 not.
        kind: why it was not accepted; "" if the row does not say.
        half: 0 or 1, from its group or context: rows that share one are in the same half.
    """

    context: Context
    candidate: str
    label: float
    kind: str
    half: int


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A fitted calibration, and how good it is.

    Attributes:
        model: the model that answered.
        n_rows: rows of both halves.
        accepted: share of all rows that is accepted.
        roc_auc: of all rows.
        roc_auc_against: by kind, of the accepted rows and those of that kind that were not.
        calibration: fitted on one half.
        error_before: expected calibration error of the other half, as the model is served now.
        error_after: the same with the new calibration.
    """

    model: ModelInfo
    n_rows: int
    accepted: float
    roc_auc: float
    roc_auc_against: dict[str, float]
    calibration: Calibration
    error_before: float
    error_after: float


def read_labelled(file: Path, *, min_remaining: int) -> list[LabelledText]:
    """Read labelled rows from a JSONL file, as `gpt2-reward train` takes them.

    Args:
        file: "context" (a text) or "messages", "candidate" and "label" on each line, or "retry" and
            "remaining_user_messages" instead of the label.
        min_remaining: as in `label_of`.

    Raises:
        DataError: the file cannot be read, or a line is not a row; the message has the line's
            number.
    """
    found = []
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    found.append(_row(json.loads(line), min_remaining))
                except (*_MALFORMED, InvalidInputError) as error:
                    raise DataError(
                        f"line {number} is not a labelled row: {error}", row=number - 1
                    ) from error
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error
    return found


def _row(item: dict[str, Any], min_remaining: int) -> LabelledText:
    context, candidate = context_of(item), item["candidate"]
    if not isinstance(candidate, str):
        raise TypeError('its "candidate" is not a text')
    key = json.dumps(item.get("group") or item.get("messages") or item.get("context"))
    half = hashlib.sha256(key.encode()).digest()[0] % 2
    return LabelledText(context, candidate, label_of(item, min_remaining), kind_of(item), half)


def calibrate(rows: Sequence[LabelledText], given: ClientArguments) -> Calibrated:
    """Score labelled rows, fit a calibration on one half of them, and judge it on the other.

    Raises:
        TrainError: the labels to fit are all alike, the rewards do not predict them, or more than
            one model answered.
        RewardError: as `RewardClient.rank_many`.
    """
    rewards, model = _rewards(rows, given)
    labels = np.array([row.label for row in rows])
    kinds = np.array([row.kind for row in rows])
    fit = np.array([row.half == 0 for row in rows])
    calibration = fitted(rewards[fit], labels[fit])
    against = {}
    for kind in sorted({*kinds[labels == 0]} - {""}):
        chosen = (labels == 1) | (kinds == kind)
        against[str(kind)] = roc_auc(rewards[chosen], labels[chosen])

    def error(one: Calibration) -> float:
        return calibration_error(one.probabilities(rewards[~fit]), labels[~fit])

    return Calibrated(
        model,
        len(rows),
        float(labels.mean()),
        roc_auc(rewards, labels),
        against,
        calibration,
        error(model.usage.calibration),
        error(calibration),
    )


def fitted(rewards: NDArray[np.float32], labels: NDArray[np.float64]) -> Calibration:
    """Scale and bias that make the labels most likely: logistic regression on the reward.

    Args:
        rewards: float32 [n].
        labels: [n], 0 or 1.

    Raises:
        TrainError: the labels are all alike, or lower rewards are accepted more often.

    Source: Platt, "Probabilistic Outputs for Support Vector Machines" (1999).
    """
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  # an extra

    if len({*labels.tolist()}) < 2:  # noqa: PLR2004  # both kinds
        raise TrainError(
            f"{len(labels)} rows to fit are all labelled alike; give rows of both labels"
        )
    # two numbers from many rows: nothing to regularise
    model = LogisticRegression(C=1e12).fit(rewards[:, None].astype(np.float64), labels)
    scale, bias = float(model.coef_[0, 0]), float(model.intercept_[0])
    if scale <= 0:
        raise TrainError(
            f"rows with lower rewards are accepted more often (scale {scale:.3g}): they are not "
            "in the format that the model reads, or the labels are the wrong way round"
        )
    return Calibration(scale, bias)


def _rewards(
    rows: Sequence[LabelledText], given: ClientArguments
) -> tuple[NDArray[np.float32], ModelInfo]:
    found, models = [], set()
    with closing(given.client(RewardClient)) as client, _bar(len(rows)) as bar:
        for some in _chunks(rows):
            groups = [
                (context, [row.candidate for row in own])
                for context, own in groupby(some, key=lambda row: row.context)
            ]
            for ranking in client.rank_many(groups):
                found.append(ranking.rewards)
                models.add(ranking.model)
            bar.update(len(some))
    (model, *others) = models or {None}
    if others or model is None:
        raise TrainError(
            f"{len(models)} models answered, but exactly one has to: give at least one row, and "
            "pin a version with --model-version"
        )
    return np.concatenate(found), model


def _chunks(rows: Sequence[LabelledText]) -> Iterator[list[LabelledText]]:
    rest = iter(rows)
    while some := list(islice(rest, ROWS_A_CALL)):
        yield some


def _bar(n_rows: int) -> "tqdm[Any]":
    return tqdm(total=n_rows, unit="row", desc="labelled rows", disable=None)


def summary(found: Calibrated) -> str:
    """The figures as text for people."""
    kinds = "".join(f"\n  against {kind}: {auc:.3f}" for kind, auc in found.roc_auc_against.items())
    return (
        f"{found.n_rows:,} labelled rows, {found.accepted:.1%} accepted; ROC AUC "
        f"{found.roc_auc:.3f}{kinds}\n"
        f"probability = sigmoid({found.calibration.scale:.4g} * reward "
        f"{found.calibration.bias:+.4g}), fitted on one half of the rows\n"
        f"expected calibration error on the other half: {found.error_before:.4f} as served, "
        f"{found.error_after:.4f} with it"
    )
