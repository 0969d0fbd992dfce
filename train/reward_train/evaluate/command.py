"""Say how often a served model chooses the best of N candidates, where the best is known.

A line of GROUPS is {"context": ..., "candidates": [...], "best": index}; `gpt2-reward rows`
writes such files. Several truncation policies, or a second server or version, are compared
with the first: docs/evaluation.md.
"""

import argparse
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from tqdm import tqdm

from reward_client.client import RewardClient
from reward_client.commands.connection import ClientArguments, add_connection, client_arguments
from reward_text import Truncation
from reward_train.dialogues import LabelledGroup
from reward_train.errors import DataError, TrainError
from reward_train.evaluate.groups import read_groups
from reward_train.evaluate.quality import Agreement, Quality, Scored, agreement, quality

GROUPS_A_CALL = 16


@dataclass(frozen=True, slots=True)
class Found:
    """What one way of scoring gave.

    Attributes:
        name: of it, for people.
        url: the server that said who it is.
        model_version: that answered.
        truncation: of long contexts.
        scored: the groups, in the order of the file.
        quality: its figures.
    """

    name: str
    url: str
    model_version: int
    truncation: Truncation
    scored: list[Scored]
    quality: Quality


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `gpt2-reward evaluate` takes."""
    parser.add_argument("groups", type=Path, metavar="GROUPS", help="JSONL file")
    parser.add_argument("--limit", type=_count, metavar="N", help="groups at most; default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them: .png, .svg or .pdf")
    add_connection(parser, groups=False, priority="bulk")
    parser.add_argument(
        "--truncation",
        nargs="+",
        choices=get_args(Truncation),
        default=["left"],
        metavar="POLICY",
        help=f"one or several of {', '.join(get_args(Truncation))}; default: left",
    )
    against = parser.add_argument_group("second", "compared with the first")
    against.add_argument("--against-url", metavar="HOST:PORT", help="another server")
    against.add_argument("--against-model-version", type=int, metavar="N", help="another version")


def run(arguments: argparse.Namespace) -> int:
    """Print the figures; progress goes to standard error."""
    draw = _drawing(arguments.plot)
    groups = read_groups(arguments.groups, limit=arguments.limit)
    found = [evaluate(groups, given) for given in _ways(arguments)]
    found = [replace(one, name=_name(one, found)) for one in found]
    if len({one.name for one in found}) < len(found):
        raise TrainError("the second is what the first is; name another server or version")
    agreements = {one.name: agreement(found[0].scored, one.scored) for one in found[1:]}
    print(table(found, agreements))
    if arguments.json:
        _write(arguments.json, report(found, agreements))
    if draw:
        qualities = {one.name: one.quality for one in found}
        try:
            draw(arguments.plot, qualities, {one.name: one.scored for one in found})
        except (OSError, ValueError) as error:
            raise TrainError(f"cannot draw {arguments.plot}: {error}") from error
    return 0


def evaluate(groups: Sequence[LabelledGroup], given: ClientArguments) -> Found:
    """Score all groups with one client.

    Raises:
        DataError: a candidate cannot be scored.
        TrainError: the model was exchanged in between.
        RewardError: as `RewardClient.rank_many`.
    """
    scored, versions = [], set()
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
                    scored.append(Scored(rewards, group.best))
                    versions.add(ranking.model_version)
                bar.update(len(some))
    (version, *others) = versions
    if others or version is None:
        raise TrainError(
            f"versions {sorted(map(str, versions))} of the model answered, and their rewards do "
            "not compare; pin one with --model-version"
        )
    return Found("", url, version, given.truncation, scored, quality(scored))


def table(found: Sequence[Found], agreements: dict[str, Agreement]) -> str:
    """The figures for reading."""
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
    if agreements:
        lines += ["", f"compared with {found[0].name}:"]
        heads = [*(f"same of {n}" for n in sizes), "Spearman", "largest diff."]
        lines.append(f"{'':{width}}  " + "  ".join(f"{head:>12}" for head in heads))
    for name, one_agreement in agreements.items():
        cells = [f"{share:.1%}" for share in one_agreement.same_first.values()]
        cells += [f"{one_agreement.spearman:.4f}", f"{one_agreement.max_difference:.4g}"]
        lines.append(f"{name:{width}}  " + "  ".join(f"{cell:>12}" for cell in cells))
    return "\n".join(lines)


def report(found: Sequence[Found], agreements: dict[str, Agreement]) -> dict[str, Any]:
    """The figures for programs."""
    return {
        "n_groups": len(found[0].scored),
        "found": [
            {
                "name": one.name,
                "url": one.url,
                "model_version": one.model_version,
                "truncation": one.truncation,
                **asdict(one.quality),
            }
            for one in found
        ],
        "agreement_with_first": {name: asdict(one) for name, one in agreements.items()},
    }


def _ways(arguments: argparse.Namespace) -> list[ClientArguments]:
    policies = list(dict.fromkeys(arguments.truncation))
    given = replace(client_arguments(arguments), truncation=policies[0])
    ways = [replace(given, truncation=policy) for policy in policies]
    url, version = arguments.against_url, arguments.against_model_version
    if url is not None or version is not None:
        urls = [url] if url else given.urls
        ways.append(replace(given, urls=urls, model_version=version or given.model_version))
    return ways


def _name(one: Found, all_found: Sequence[Found]) -> str:
    """What tells it from the others."""
    parts = [f"version {one.model_version}"]
    if len({other.url for other in all_found}) > 1:
        parts.insert(0, one.url)
    if len({other.truncation for other in all_found}) > 1:
        parts.append(one.truncation)
    return ", ".join(parts)


def _drawing(file: Path | None) -> Any:  # noqa: ANN401  # the function, or None
    """Told missing before the work."""
    if file is None:
        return None
    from reward_train.evaluate.plot import draw  # noqa: PLC0415  # an extra

    return draw


def _write(file: Path, content: dict[str, Any]) -> None:
    try:
        file.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    except OSError as error:
        raise DataError(f"cannot write {file}: {error.strerror}") from error


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return value
