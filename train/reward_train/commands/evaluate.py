"""Measure how often a served model chooses the best of N candidates, where the best is known.

A line of GROUPS is {"context": ..., "candidates": [...], "best": index}; `gpt2-reward rows`
writes such files. Several truncation policies, or a second server or version, are compared
with the first: docs/evaluation.md.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from reward_client.arguments import ClientArguments, add_connection, client_arguments
from reward_text import Truncation
from reward_train.errors import DataError, TrainError
from reward_train.evaluate.comparison import evaluate, name_of, report, table
from reward_train.evaluate.groups import read_groups
from reward_train.evaluate.quality import agreement

EXTRA = "evaluate"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `gpt2-reward evaluate` takes."""
    parser.add_argument(
        "groups", type=Path, metavar="GROUPS", help="The labelled groups: a JSONL file."
    )
    parser.add_argument(
        "--limit", type=_count, metavar="N", help="Score at most N groups. Default: all."
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="Write all figures into this file."
    )
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="Draw the figures into this file: .png, .svg or .pdf.",
    )
    add_connection(parser, groups=False, priority="bulk")
    parser.add_argument(
        "--truncation",
        nargs="+",
        choices=get_args(Truncation),
        default=["left"],
        metavar="POLICY",
        help="Cut long contexts by these policies, one or several of "
        f"{', '.join(get_args(Truncation))}. Default: left.",
    )
    against = parser.add_argument_group("comparison", "Compare with a second way of scoring.")
    against.add_argument("--against-url", metavar="HOST:PORT", help="Compare with this server.")
    against.add_argument(
        "--against-model-version", type=int, metavar="N", help="Compare with this version."
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the figures; progress goes to standard error."""
    draw = _drawing(arguments.plot)
    groups = read_groups(arguments.groups, limit=arguments.limit)
    found = [evaluate(groups, given) for given in _ways(arguments)]
    found = [replace(one, name=name_of(one, found)) for one in found]
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


def _ways(arguments: argparse.Namespace) -> list[ClientArguments]:
    policies = list(dict.fromkeys(arguments.truncation))
    given = replace(client_arguments(arguments), truncation=policies[0])
    ways = [replace(given, truncation=policy) for policy in policies]
    url, version = arguments.against_url, arguments.against_model_version
    if url is not None or version is not None:
        urls = [url] if url else given.urls
        ways.append(replace(given, urls=urls, model_version=version or given.model_version))
    return ways


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
