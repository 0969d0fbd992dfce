"""The part of `gpt2-reward score` that scores files into files."""

import argparse
import asyncio
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import cast

from reward_client.aio import AsyncRewardClient
from reward_client.bulk.job import Format, Job, Totals
from reward_client.bulk.patience import PASSING
from reward_client.bulk.pipeline import score_file
from reward_client.commands.connection import ClientArguments, client_arguments
from reward_client.errors import ServerError

TIMEOUT_S = 600.0  # a request of 64 long texts takes minutes on a small CPU
TRY_LATER = 75  # EX_TEMPFAIL of sysexits.h


def add_bulk_arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes besides the server's options."""
    group = parser.add_argument_group(
        "bulk", "a whole file into another; after any end, the same command goes on"
    )
    group.add_argument("--input", type=Path, metavar="FILE", help="JSONL, Parquet or text")
    group.add_argument("--output", type=Path, metavar="FILE", help="JSONL, or Parquet: *.parquet")
    group.add_argument("--strict", action="store_true", help="end at a line that cannot be scored")
    group.add_argument(
        "--in-flight", type=_count, default=8, metavar="N", help="requests at once; %(default)s"
    )
    group.add_argument(
        "--patience",
        type=_seconds,
        default=600.0,
        metavar="SECONDS",
        help="without any answer before the server is given up; %(default)s",
    )
    group.add_argument(
        "--trust-input",
        action="store_true",
        help="go on although the input was changed behind the lines that are scored",
    )


def run_bulk(arguments: argparse.Namespace) -> int:
    """Score a file into a file.

    Returns:
        0 when all is done; 75 when no server answered and a later run may do better.

    Raises:
        RewardError: as `score_file`.
        KeyboardInterrupt: the output can be gone on with.
    """
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
        print("interrupted; the same command goes on from here", file=sys.stderr)
        raise
    print(_summary(job, totals), file=sys.stderr)
    return 0


async def _score(job: Job, given: ClientArguments) -> Totals:
    client = replace(given, priority=given.priority or "bulk").client(AsyncRewardClient)
    try:
        return await score_file(job, client, quiet=False)
    finally:
        await client.close()


def _try_later(error: ServerError) -> int:
    print(
        f"gpt2-reward score: given up waiting: {error}\nthe same command goes on from here",
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


def _seconds(text: str) -> float:
    value = float(text)
    if not (value >= 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"must be at least 0 and finite, not {text}")
    return value
