"""The options of `gpt2-reward score` for data sets, and the jobs that they describe."""

import argparse
import math
from pathlib import Path
from typing import cast

from reward_client.arguments import share_argument
from reward_client.bulk.columns import Columns
from reward_client.bulk.files import jobs_of
from reward_client.bulk.job import Format, Job, Shard

Group = argparse._ArgumentGroup  # noqa: SLF001  # it has no public name


def add_arguments(group: Group) -> None:
    """Add the options for data sets."""
    group.add_argument(
        "--input",
        nargs="+",
        action="extend",
        metavar="FILE",
        help="Score these files: JSONL, CSV with a header, or text, plain or compressed (gzip, "
        "Zstandard), or Parquet; also directories and patterns. - is standard input.",
    )
    group.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="Write the rewards to this file: JSONL, compressed if it is named *.gz or *.zst, or "
        "Parquet if it is named *.parquet. For several inputs, write to this directory. - is "
        "standard output.",
    )
    _add_columns(group)
    _add_rules(group)


def _add_columns(group: Group) -> None:
    group.add_argument(
        "--text-column", metavar="NAME", help="Score this column by itself. Default: text."
    )
    group.add_argument(
        "--context-column",
        metavar="NAME",
        help="Take contexts from this column. Default: context.",
    )
    group.add_argument(
        "--messages-column",
        metavar="NAME",
        help="Take conversations, each a list of messages or such a list as JSON, from this "
        "column instead of contexts. Default: messages.",
    )
    group.add_argument(
        "--candidate-column",
        metavar="NAME",
        help="Take candidates, each a string or a list of strings, from this column. Default: "
        "candidate or candidates.",
    )
    group.add_argument(
        "--keep",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="Copy these columns into the output, with their types; id is always copied.",
    )
    group.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="Do part I of N, counted from 1: every N-th of several files, or blocks of lines of "
        "a single file, whose output then has the number in its name.",
    )


def _add_rules(group: Group) -> None:
    group.add_argument(
        "--strict", action="store_true", help="Stop at the first line that cannot be scored."
    )
    group.add_argument(
        "--max-rejected",
        type=share_argument,
        default=0.01,
        metavar="SHARE",
        help="Exit with code 65 if more than this share of the lines could not be scored.",
    )
    group.add_argument(
        "--rescore-rejected",
        action="store_true",
        help="Score the lines that were set aside and have since been fixed in the input.",
    )
    group.add_argument(
        "--in-flight",
        type=_count,
        default=8,
        metavar="N",
        help="Keep at most N requests in flight.",
    )
    group.add_argument(
        "--patience",
        type=_seconds,
        default=600.0,
        metavar="SECONDS",
        help="Give up after this many seconds without any answer from the server.",
    )
    group.add_argument(
        "--trust-input",
        action="store_true",
        help="Continue even if the input has changed; the lines already scored must be the same.",
    )


def jobs_asked_for(arguments: argparse.Namespace) -> list[Job]:
    """The jobs that the arguments describe, made without opening a file.

    Raises:
        InvalidInputError: options contradict each other, or no file is found.
    """
    job = Job(
        Path(arguments.input[0]),
        arguments.output,
        columns=Columns(
            arguments.text_column,
            arguments.context_column,
            arguments.messages_column,
            arguments.candidate_column,
            tuple(dict.fromkeys(arguments.keep)),
        ),
        format=cast("Format | None", arguments.format),
        shard=arguments.shard,
        strict=arguments.strict,
        trust_input=arguments.trust_input,
        rescore_rejected=arguments.rescore_rejected,
        in_flight=arguments.in_flight,
        patience_s=arguments.patience,
    )
    return jobs_of(arguments.input, arguments.output, job)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not (value >= 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"must be at least 0 and finite, not {text}")
    return value


def _shard(text: str) -> Shard:
    number, _, count = text.partition("/")
    try:
        return Shard(int(number), int(count))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"must be like 3/16, from 1/16 to 16/16, not {text}"
        ) from error
