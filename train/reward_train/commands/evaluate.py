"""Measure how often a served model chooses the best of N candidates, on labelled groups.

Each line of GROUPS is {"context": ..., "candidates": [...], "best": index}; `gpt2-reward rows`
writes such files. Further truncation policies, or a second server, model or version, are
compared with the first. With --calibrate, probabilities are fitted to labelled rows: see
docs/evaluation.md.
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

from reward_client.arguments import ClientArguments, add_connection, client_arguments
from reward_text import Truncation
from reward_train.errors import DataError, TrainError
from reward_train.evaluate.calibration import calibrate, read_labelled, summary
from reward_train.evaluate.comparison import evaluate, name_of, report, table
from reward_train.evaluate.groups import read_groups
from reward_train.evaluate.quality import agreement
from reward_train.labels import MIN_REMAINING

EXTRA = "evaluate"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `gpt2-reward evaluate`."""
    parser.add_argument(
        "groups",
        nargs="?",
        type=Path,
        metavar="GROUPS",
        help="The labelled groups: a JSONL file. May be left out with --calibrate.",
    )
    parser.add_argument(
        "--limit", type=_count, metavar="N", help="Score at most N groups. Default: all."
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="Write all figures to this file, as JSON."
    )
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="Draw the figures into this file: .png, .svg or .pdf.",
    )
    add_connection(parser, groups=False, chats=True, priority="bulk")
    parser.add_argument(
        "--truncation",
        nargs="+",
        choices=get_args(Truncation),
        default=["left"],
        metavar="POLICY",
        help="Cut long contexts by these policies, one or several of "
        f"{', '.join(get_args(Truncation))}. Default: left.",
    )
    _add_calibration(
        parser.add_argument_group(
            "calibration", "Fit probabilities to labelled rows that the model has not seen."
        )
    )
    against = parser.add_argument_group("comparison", "Compare with a second way of scoring.")
    against.add_argument("--against-url", metavar="HOST:PORT", help="Compare with this server.")
    against.add_argument("--against-model", metavar="NAME", help="Compare with this model.")
    against.add_argument(
        "--against-model-version", type=int, metavar="N", help="Compare with this version."
    )


def _add_calibration(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--calibrate",
        type=Path,
        metavar="ROWS",
        help="Fit the scale and bias of probabilities on half of these rows, and judge them on "
        "the rest.",
    )
    group.add_argument(
        "--min-remaining",
        type=int,
        default=MIN_REMAINING,
        metavar="N",
        help="Count a row without a label as accepted if there was no retry and the user sent at "
        "least N further messages.",
    )
    group.add_argument(
        "--repository",
        type=Path,
        metavar="FOLDER",
        help="Write the calibration into this model repository, into the version that answered. "
        "Default: only print it.",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the figures; progress goes to standard error."""
    if arguments.groups is None and arguments.calibrate is None:
        raise DataError("nothing to evaluate: give a file of GROUPS, or --calibrate ROWS")
    if arguments.groups is not None:
        _judge_groups(arguments)
    if arguments.calibrate is not None:
        _calibrate(arguments)
    return 0


def _calibrate(arguments: argparse.Namespace) -> None:
    from reward_export.recalibrate import recalibrate  # noqa: PLC0415  # when needed

    rows = read_labelled(arguments.calibrate, min_remaining=arguments.min_remaining)
    found = calibrate(rows, _ways(arguments)[0])
    print(summary(found))
    if arguments.repository is None:
        print(json.dumps({"calibration": asdict(found.calibration)}))
        return
    if found.model.identity is None:
        raise TrainError(
            "the server does not say which model it serves, so none can be calibrated in "
            f"{arguments.repository}; export the model again"
        )
    version, identity = found.model.version, found.model.identity
    print(
        recalibrate(
            arguments.repository,
            version,
            found.calibration,
            identity=identity,
            name=arguments.model,
        )
    )


def _judge_groups(arguments: argparse.Namespace) -> None:
    draw = _drawing(arguments.plot)
    groups = read_groups(arguments.groups, limit=arguments.limit)
    found = [evaluate(groups, given) for given in _ways(arguments)]
    found = [replace(one, name=name_of(one, found)) for one in found]
    if len({one.name for one in found}) < len(found):
        raise TrainError("both ways of scoring are the same; name another server or version")
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


def _ways(arguments: argparse.Namespace) -> list[ClientArguments]:
    policies = list(dict.fromkeys(arguments.truncation))
    given = replace(client_arguments(arguments), truncation=policies[0])
    ways = [replace(given, truncation=policy) for policy in policies]
    url, version = arguments.against_url, arguments.against_model_version
    model = arguments.against_model
    if url is not None or version is not None or model is not None:
        second = replace(given, urls=[url] if url else given.urls, model=model or given.model)
        # a version number belongs to one model
        pinned = version or (given.model_version if second.model == given.model else None)
        ways.append(replace(second, model_version=pinned))
    return ways


def _drawing(file: Path | None) -> Any:  # noqa: ANN401  # the function, or None
    """Import `draw` before the work, so that a missing extra is reported at once."""
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
