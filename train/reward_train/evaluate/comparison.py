"""Ways of scoring labelled groups, side by side: servers, versions, truncation policies."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
from tqdm import tqdm

from reward_client.arguments import ClientArguments
from reward_client.client import RewardClient
from reward_client.results import ModelInfo
from reward_text import Truncation
from reward_train.dialogues import LabelledGroup
from reward_train.errors import TrainError
from reward_train.evaluate.quality import Agreement, Estimate, Quality, Scored, quality

GROUPS_A_CALL = 16

BySize: TypeAlias = dict[int, Estimate]


@dataclass(frozen=True, slots=True)
class Found:
    """The result of one way of scoring.

    Attributes:
        name: its name, for people.
        url: of the server that the client connected to.
        served_as: name of the model there.
        model: the model that answered, as its server describes it.
        truncation: of long contexts.
        scored: the groups, in the order of the file.
        quality: the figures.
    """

    name: str
    url: str
    served_as: str
    model: ModelInfo
    truncation: Truncation
    scored: list[Scored]
    quality: Quality


def evaluate(groups: Sequence[LabelledGroup], given: ClientArguments) -> Found:
    """Score all groups with one client.

    Raises:
        DataError: a candidate cannot be scored.
        TrainError: more than one version answered.
        RewardError: as `RewardClient.rank_many`.
    """
    scored, models = list[Scored](), set[ModelInfo | None]()
    with closing(given.client(RewardClient)) as client:
        url = client.connect().url
        with tqdm(total=len(groups), unit="group", desc=given.truncation, disable=None) as bar:
            for start in range(0, len(groups), GROUPS_A_CALL):
                some = groups[start : start + GROUPS_A_CALL]
                rankings = client.rank_many([(one.context, one.candidates) for one in some])
                for group, ranking in zip(some, rankings, strict=True):
                    rewards = np.empty(len(ranking), np.float32)
                    for one in ranking:
                        rewards[one.index] = one.reward
                    scored.append(Scored(rewards, group.best, group.worst))
                    models.add(ranking.model)
                bar.update(len(some))
    (model, *others) = models
    if others or model is None:
        versions = sorted(str(one and one.version) for one in models)
        raise TrainError(
            f"versions {versions} of the model answered, and their rewards are not comparable; pin "
            "one with --model-version"
        )
    return Found("", url, given.model, model, given.truncation, scored, quality(scored))


def table(found: Sequence[Found], agreements: dict[str, Agreement]) -> str:
    """The figures as a table for people."""
    sizes = list(found[0].quality.first_of)
    width = max(len(one.name) for one in found)
    heads = [*(f"best of {n}" for n in sizes), "beats one", "rec. rank"]
    lines = [
        f"{len(found[0].scored):,} groups; shares with half of their 95 % intervals",
        f"{'':{width}}  " + "  ".join(f"{head:>12}" for head in heads),
    ]
    for one in found:
        estimates = [*one.quality.first_of.values(), one.quality.pairwise]
        cells = [f"{e.mean:6.1%} ±{(e.high - e.low) / 2:.1%}" for e in estimates]
        cells.append(f"{one.quality.reciprocal_rank.mean:.3f}")
        lines.append(f"{one.name:{width}}  " + "  ".join(f"{cell:>12}" for cell in cells))
    for what, by_size in _further(found):
        lines += ["", f"{what}:"]
        heads = [f"of {n}" for n in by_size[0][1]]
        lines.append(f"{'':{width}}  " + "  ".join(f"{head:>12}" for head in heads))
        for name, shares in by_size:
            cells = [f"{share.mean:.1%}" for share in shares.values()]
            lines.append(f"{name:{width}}  " + "  ".join(f"{cell:>12}" for cell in cells))
    if agreements:
        lines += ["", f"compared with {found[0].name}:"]
        heads = [*(f"same of {n}" for n in sizes), "Spearman", "largest diff."]
        lines.append(f"{'':{width}}  " + "  ".join(f"{head:>12}" for head in heads))
    for name, one_agreement in agreements.items():
        cells = [f"{share:.1%}" for share in one_agreement.same_first.values()]
        cells += [f"{one_agreement.spearman:.4f}", f"{one_agreement.max_difference:.4g}"]
        lines.append(f"{name:{width}}  " + "  ".join(f"{cell:>12}" for cell in cells))
    return "\n".join(lines)


def _further(found: Sequence[Found]) -> Iterator[tuple[str, list[tuple[str, BySize]]]]:
    yield "best is first or second", [(one.name, one.quality.in_first_two) for one in found]
    if found[0].quality.worst_rejected:
        yield "worst is not first", [(one.name, one.quality.worst_rejected) for one in found]


def report(found: Sequence[Found], agreements: dict[str, Agreement]) -> dict[str, Any]:
    """The figures as JSON for programs."""
    return {
        "n_groups": len(found[0].scored),
        "found": [
            {
                "name": one.name,
                "url": one.url,
                "model": one.served_as,
                "model_version": one.model.version,
                "identity": one.model.identity,
                "source": one.model.source,
                "revision": one.model.revision,
                "truncation": one.truncation,
                **asdict(one.quality),
            }
            for one in found
        ],
        "agreement_with_first": {name: asdict(one) for name, one in agreements.items()},
    }


def name_of(one: Found, all_found: Sequence[Found]) -> str:
    """A name that tells one way of scoring from the others."""
    parts = [f"version {one.model.version}"]
    if len({other.served_as for other in all_found}) > 1:
        parts.insert(0, one.served_as)
    if len({other.url for other in all_found}) > 1:
        parts.insert(0, one.url)
    if len({other.truncation for other in all_found}) > 1:
        parts.append(one.truncation)
    return ", ".join(parts)
