"""Texts from the lines of a file, and errors that name the line."""

import contextlib
import json
from collections.abc import Iterable, Iterator

from reward_client.errors import InvalidInputError, NonFiniteRewardError
from reward_client.wire import listed


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
def line_numbers(first: int) -> Iterator[None]:
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
