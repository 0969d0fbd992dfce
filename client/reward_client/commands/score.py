"""Score texts, one reward per line in the order of the input, or whole data sets.

A line of a text file is a text, blank lines included. A line of a JSONL file is an object
with "text", or "context" or "messages" and "candidate"; use it for texts that hold line breaks.

Rewards are all that is printed. With --input and --output, whole data sets are scored from file
to file: docs/bulk.md.
"""

import argparse
import asyncio
import contextlib
import io
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

from reward_client.aio import AsyncRewardClient
from reward_client.arguments import ClientArguments, add_connection, client_arguments, open_client
from reward_client.bulk.job import Format, Job, Totals
from reward_client.bulk.lines import Line
from reward_client.bulk.patience import PASSING
from reward_client.bulk.pipeline import score_file
from reward_client.client import RewardClient
from reward_client.errors import InvalidInputError, ServerError
from reward_client.reading import line_numbers, read_lines

EXTRA = None
INTERACTIVE_TIMEOUT_S = 60.0
BULK_TIMEOUT_S = 600.0  # a request of 64 long texts takes minutes on a small CPU
TRY_LATER = 75  # EX_TEMPFAIL of sysexits.h
TOO_FEW = 65  # EX_DATAERR of sysexits.h
ROWS_A_CALL = 256  # enough to fill a server's batch, little enough to stream


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `gpt2-reward score` takes."""
    parser.add_argument(
        "file", nargs="?", metavar="FILE", help="The file to score. Default: -, standard input."
    )
    parser.add_argument(
        "--format",
        choices=("text", "jsonl", "parquet"),
        help="Read the file as this. Default: by its name; if that does not tell, text, or jsonl "
        "with --input.",
    )
    _add_bulk(
        parser.add_argument_group(
            "data sets",
            "Score a whole file into another. After any end, the same command continues.",
        )
    )
    add_connection(parser, timeout="60, or 600 with --input")
    parser.set_defaults(timeout=None)


def run(arguments: argparse.Namespace) -> int:
    """Print one reward a line, or score a file into a file."""
    if arguments.input or arguments.output:
        _check_bulk(arguments)
        arguments.timeout = arguments.timeout or BULK_TIMEOUT_S
        return _score_file(arguments)
    if arguments.format == "parquet":
        raise InvalidInputError("Parquet is read with --input, and needs --output")
    if arguments.truncation != "left":
        raise InvalidInputError(
            f"--truncation {arguments.truncation} is for groups, and FILE has whole texts; "
            "score groups with --input and --output"
        )
    arguments.file = arguments.file or "-"
    arguments.timeout = arguments.timeout or INTERACTIVE_TIMEOUT_S
    return _print_rewards(arguments)


def _check_bulk(arguments: argparse.Namespace) -> None:
    if not (arguments.input and arguments.output):
        raise InvalidInputError("--input and --output go together; without them, name a FILE")
    if arguments.file is not None:
        raise InvalidInputError("either FILE, or --input and --output")


def _print_rewards(arguments: argparse.Namespace) -> int:
    is_jsonl = (arguments.format or Path(arguments.file).suffix.lstrip(".")) == "jsonl"
    with _open(arguments.file) as file, open_client(arguments) as client:
        lines = read_lines(file, jsonl=is_jsonl)
        first = 1
        while chunk := list(islice(lines, ROWS_A_CALL)):
            with line_numbers(first):
                rewards = _rewards(client, chunk)
            # nine digits bring every float32 back as it was
            print("\n".join(f"{reward:.9g}" for reward in rewards), flush=True)
            first += len(chunk)
    return 0


def _rewards(client: RewardClient, lines: list[Line]) -> list[float]:
    texts = [line.text for line in lines]
    if None not in texts:
        return list(map(float, client.score([text or "" for text in texts]).rewards))
    groups = [(line.context or "", line.candidates) for line in lines]
    return [ranking.best.reward for ranking in client.rank_many(groups)]


@contextlib.contextmanager
def _open(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        file = io.BufferedReader(io.FileIO(name))
    except OSError as error:
        raise InvalidInputError(f"cannot read {name}: {error.strerror}") from error
    with file:
        yield file


def _add_bulk(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--input",
        type=Path,
        metavar="FILE",
        help="Score this file: JSONL, Parquet or text. It needs --output.",
    )
    group.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="Write the rewards into this file: JSONL, or Parquet if it is named *.parquet.",
    )
    group.add_argument(
        "--strict", action="store_true", help="Stop at the first line that cannot be scored."
    )
    group.add_argument(
        "--max-rejected",
        type=_share,
        default=0.01,
        metavar="SHARE",
        help="End with exit code 65 if more than this share of the lines could not be scored.",
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


def _score_file(arguments: argparse.Namespace) -> int:
    """0 when all is done, 65 when too few lines could be scored, 75 when no server answered."""
    job = Job(
        arguments.input,
        arguments.output,
        format=cast("Format | None", arguments.format),
        strict=arguments.strict,
        trust_input=arguments.trust_input,
        in_flight=arguments.in_flight,
        patience_s=arguments.patience,
    )
    try:
        totals = asyncio.run(_score(job, client_arguments(arguments)))
    except PASSING as error:
        return _try_later(error)
    except KeyboardInterrupt:
        print("interrupted; the same command continues from here", file=sys.stderr)
        raise
    print(_summary(job, totals), file=sys.stderr)
    if totals.is_success(arguments.max_rejected):
        return 0
    print(
        f"gpt2-reward score: {totals.all_rejected:,} of {totals.all_lines:,} lines could not be "
        f"scored, more than --max-rejected {arguments.max_rejected:g} allows; "
        f"{job.rejected} has the reasons",
        file=sys.stderr,
    )
    return TOO_FEW


async def _score(job: Job, given: ClientArguments) -> Totals:
    client = replace(given, priority=given.priority or "bulk").client(AsyncRewardClient)
    try:
        return await score_file(job, client, quiet=False)
    finally:
        await client.close()


def _try_later(error: ServerError) -> int:
    print(
        f"gpt2-reward score: given up waiting: {error}\nthe same command continues from here",
        file=sys.stderr,
    )
    return TRY_LATER


def _summary(job: Job, totals: Totals) -> str:
    speed = totals.rows / max(totals.seconds, 1e-9)
    before = f" after the first {totals.resumed_at:,}" if totals.resumed_at else ""
    rejected = f"; {totals.rejected:,} set aside in {job.rejected}" if totals.rejected else ""
    return (
        f"{totals.lines:,} lines{before} scored into {job.output}, {totals.rows:,} rows at "
        f"{speed:,.0f} rows/s{rejected}"
    )


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, not {text}")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not (value >= 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"must be at least 0 and finite, not {text}")
    return value
