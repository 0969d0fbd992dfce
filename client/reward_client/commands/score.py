"""Score texts, one reward a line in the order of the input, and nothing else on output.

A line of a text file is a text, blank lines included. A line of a JSONL file is an object
whose field "text" is scored; use it for texts that hold line breaks.

With --input and --output, whole data sets are scored from file to file: docs/bulk.md.
"""

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from reward_client.bulk.command import TIMEOUT_S, add_bulk_arguments, run_bulk
from reward_client.commands.connection import add_connection, open_client
from reward_client.errors import InvalidInputError, NonFiniteRewardError
from reward_client.wire import listed

INTERACTIVE_TIMEOUT_S = 60.0
ROWS_A_CALL = 256  # enough to fill a server's batch, little enough to stream


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `gpt2-reward score` takes."""
    parser.add_argument("file", nargs="?", metavar="FILE", help="default: -, for stdin")
    parser.add_argument(
        "--format",
        choices=("text", "jsonl", "parquet"),
        help="default: by the file's name, and else text, or with --input jsonl",
    )
    add_bulk_arguments(parser)
    add_connection(parser)
    parser.set_defaults(timeout=None)  # 60 to a terminal, longer where nobody waits


def run(arguments: argparse.Namespace) -> int:
    """Print one reward a line, or score a file into a file."""
    if arguments.input or arguments.output:
        _check_bulk(arguments)
        arguments.timeout = arguments.timeout or TIMEOUT_S
        return run_bulk(arguments)
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
        texts = read_texts(file, jsonl=is_jsonl)
        first = 1
        while chunk := list(islice(texts, ROWS_A_CALL)):
            with _line_numbers(first):
                rewards = client.score(chunk).rewards
            # nine digits bring every float32 back as it was
            print("\n".join(f"{reward:.9g}" for reward in rewards), flush=True)
            first += len(chunk)
    return 0


def read_texts(lines: Iterable[bytes], *, jsonl: bool) -> Iterator[str]:
    """The texts of a file's lines, as they come.

    Args:
        lines: each with its line break, as a file gives them.
        jsonl: whether a line is a JSON object with a field "text".

    Raises:
        InvalidInputError: a line is no UTF-8 or no such object; the message has its number.
    """
    for number, line in enumerate(lines, start=1):
        try:
            text = _without_line_break(line).decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInputError(
                f"line {number} is not UTF-8 (byte {error.start + 1}); convert the file first",
                row=number - 1,
            ) from error
        yield _text_field(text, number) if jsonl else text


def _without_line_break(line: bytes) -> bytes:
    """A CR belongs to the text unless a LF follows it."""
    return line.removesuffix(b"\r\n") if line.endswith(b"\r\n") else line.removesuffix(b"\n")


def _text_field(line: str, number: int) -> str:
    try:
        item = json.loads(line)
    except json.JSONDecodeError as error:
        raise InvalidInputError(
            f"line {number} is not JSON: {error.msg} at column {error.colno}", row=number - 1
        ) from error
    except (ValueError, RecursionError) as error:  # huge numbers, thousands of brackets
        raise InvalidInputError(
            f"line {number} is no JSON we read: {error}", row=number - 1
        ) from error
    if not isinstance(item, dict) or not isinstance(item.get("text"), str):
        raise InvalidInputError(
            f'line {number} is no object with a string "text"; for plain text use --format text',
            row=number - 1,
        )
    return str(item["text"])


@contextlib.contextmanager
def _line_numbers(first: int) -> Iterator[None]:
    """Rows of a call are lines of a file, `first` the first."""
    try:
        yield
    except InvalidInputError as error:
        if error.row is None:
            raise
        line = first + error.row
        reason = str(error).removeprefix(f"row {error.row} ")
        raise InvalidInputError(f"line {line} {reason}", row=line - 1) from error
    except NonFiniteRewardError as error:
        lines = [first + row for row in error.rows]
        raise NonFiniteRewardError(
            f"lines {listed(lines)} could not be scored (NaN or infinity)",
            rows=tuple(line - 1 for line in lines),
        ) from error


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
