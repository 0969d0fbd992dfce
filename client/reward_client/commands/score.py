"""Score texts, one reward per line in the order of the input, or whole data sets.

Each line of a text file is a text, blank lines included. Each line of a JSONL file is an object
with "text", or with "candidate" and either "context" or "messages"; use JSONL for texts that
contain line breaks.

Only the rewards are printed. With --input and --output, whole data sets are scored from file to
file: docs/bulk.md.
"""

import argparse
import asyncio
import contextlib
import io
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO, get_args

from reward_client.aio import AsyncRewardClient
from reward_client.arguments import ClientArguments, add_connection, client_arguments, open_client
from reward_client.bulk.arguments import add_arguments as add_bulk_arguments
from reward_client.bulk.arguments import jobs_asked_for
from reward_client.bulk.job import PACKED, Format, Job, Totals
from reward_client.bulk.lines import Line
from reward_client.bulk.patience import PASSING
from reward_client.bulk.pipeline import score_files
from reward_client.client import RewardClient
from reward_client.errors import InvalidInputError, ServerError
from reward_client.reading import line_numbers, read_lines

EXTRA = None
INTERACTIVE_TIMEOUT_S = 60.0
BULK_TIMEOUT_S = 600.0  # a request of 128 long texts takes minutes on a small CPU
TRY_LATER = 75  # EX_TEMPFAIL of sysexits.h
TOO_FEW = 65  # EX_DATAERR of sysexits.h
ROWS_A_CALL = 256  # enough to fill a server's batch, few enough to stream


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `gpt2-reward score`."""
    parser.add_argument(
        "file", nargs="?", metavar="FILE", help="The file to score. Default: -, standard input."
    )
    parser.add_argument(
        "--format",
        choices=get_args(Format),
        help="Read the file in this format. Default: by its name; if that does not tell, text, or "
        "jsonl with --input.",
    )
    add_bulk_arguments(
        parser.add_argument_group(
            "data sets",
            "Score files into files. However a run ends, the same command continues it.",
        )
    )
    add_connection(parser, timeout="60, or 600 with --input")
    parser.set_defaults(timeout=None)


def run(arguments: argparse.Namespace) -> int:
    """Print one reward per line, or score a file into a file."""
    if arguments.input or arguments.output:
        _check_bulk(arguments)
        arguments.timeout = arguments.timeout or BULK_TIMEOUT_S
        return _score_file(arguments)
    ending = Path(arguments.file or "-").suffix.removeprefix(".")
    if (arguments.format or ending) in {"parquet", "csv"} or f".{ending}" in PACKED:
        raise InvalidInputError(
            f"{arguments.file or 'standard input'} is Parquet, CSV or compressed, which needs "
            "--output, and --input instead of FILE"
        )
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
        raise InvalidInputError("give either FILE, or --input and --output")


def _print_rewards(arguments: argparse.Namespace) -> int:
    is_jsonl = (arguments.format or Path(arguments.file).suffix.lstrip(".")) == "jsonl"
    with _open(arguments.file) as file, open_client(arguments) as client:
        lines = read_lines(file, jsonl=is_jsonl)
        first = 1
        while chunk := list(islice(lines, ROWS_A_CALL)):
            with line_numbers(first):
                rewards = _rewards(client, chunk)
            # nine digits restore every float32 exactly
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


def _score_file(arguments: argparse.Namespace) -> int:
    """The exit code: 0 if all is done, 65 if too few lines were scored, 75 without an answer."""
    jobs = jobs_asked_for(arguments)
    if not jobs:
        print("this shard has no file; there are fewer files than shards", file=sys.stderr)
        return 0
    try:
        totals = asyncio.run(_score(jobs, client_arguments(arguments)))
    except PASSING as error:
        return _try_later(error)
    except KeyboardInterrupt:
        print("interrupted; the same command continues from here", file=sys.stderr)
        raise
    print(_summary(jobs, arguments.output, totals), file=sys.stderr)
    if totals.is_success(arguments.max_rejected):
        return 0
    print(
        f"gpt2-reward score: {totals.all_rejected:,} of {totals.all_lines:,} lines could not be "
        f"scored, more than --max-rejected {arguments.max_rejected:g} allows; "
        f"{_reasons(jobs)} has the reasons",
        file=sys.stderr,
    )
    return TOO_FEW


async def _score(jobs: list[Job], given: ClientArguments) -> Totals:
    client = replace(given, priority=given.priority or "bulk").client(AsyncRewardClient)
    try:
        return await score_files(jobs, client, quiet=False)
    finally:
        await client.close()


def _try_later(error: ServerError) -> int:
    print(
        f"gpt2-reward score: gave up waiting: {error}\nthe same command continues from here",
        file=sys.stderr,
    )
    return TRY_LATER


def _summary(jobs: list[Job], output: Path, totals: Totals) -> str:
    speed = totals.rows / max(totals.seconds, 1e-9)
    before = f" after the first {totals.resumed_at:,}" if totals.resumed_at else ""
    files = f" of {len(jobs):,} files" if len(jobs) > 1 else ""
    where = "standard output" if jobs[0].is_printed else output if files else jobs[0].output
    rejected = f"; {totals.rejected:,} set aside in {_reasons(jobs)}" if totals.rejected else ""
    return (
        f"{totals.lines:,} lines{files}{before} scored into {where}, {totals.rows:,} rows at "
        f"{speed:,.0f} rows/s{rejected}"
    )


def _reasons(jobs: list[Job]) -> str:
    """Where the lines that were set aside are listed."""
    if jobs[0].is_printed:
        return "standard error"
    return str(jobs[0].rejected if len(jobs) == 1 else f"{jobs[0].side}/*.rejected.jsonl")
