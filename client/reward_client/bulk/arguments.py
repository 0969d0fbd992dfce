"""What `gpt2-reward score` takes for data sets, and the jobs that it means."""

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
    """Add the options of a data set."""
    group.add_argument(
        "--input",
        nargs="+",
        action="extend",
        metavar="FILE",
        help="Score these files: JSONL, CSV with a header, or text, plain or packed (gzip, "
        "Zstandard), or Parquet; also directories and patterns. - is standard input.",
    )
    group.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="Write the rewards into this file: JSONL, packed if it is named *.gz or *.zst, or "
        "Parquet if it is named *.parquet; several inputs into this directory. - is standard "
        "output.",
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
        help="Take conversations, each a list of messages or that as JSON, from this column in "
        "place of contexts. Default: messages.",
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
        help="Copy these columns into the output, with their types; id is copied anyway.",
    )
    group.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="Do the I-th of N parts of the work, from 1 on: of several files every N-th, of one "
        "blocks of its lines, into an output with the number in its name.",
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
        help="End with exit code 65 if more than this share of the lines could not be scored.",
    )
    group.add_argument(
        "--rescore-rejected",
        action="store_true",
        help="Score the lines that were set aside and have been fixed in the input since.",
    )
    group.add_argument(
        "--in-flight",
        type=_count,
        default=8,
        metavar="N",
        help="Have at most N requests on their way at once.",
    )
    group.add_argument(
        "--patience",
        type=_seconds,
        default=600.0,
        metavar="SECONDS",
        help="Give the server up after this many seconds without any answer.",
    )
    group.add_argument(
        "--trust-input",
        action="store_true",
        help="Continue although the input was changed after the lines that are scored.",
    )


def jobs_asked_for(arguments: argparse.Namespace) -> list[Job]:
    """The jobs, none of whose files has been opened.

    Raises:
        InvalidInputError: options that do not go together, or nothing is found.
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
