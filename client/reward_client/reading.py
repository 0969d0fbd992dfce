"""Lines of a file as what to score, and errors that name the line."""

import contextlib
from collections.abc import Iterable, Iterator

from reward_client.bulk import lines
from reward_client.bulk.source import BOM
from reward_client.errors import InvalidInputError, NonFiniteRewardError
from reward_client.wire import listed


def read_lines(file: Iterable[bytes], *, jsonl: bool) -> Iterator[lines.Line]:
    """A file's lines, of one candidate each, as they come; read the way `score --input` does.

    Args:
        file: its lines, each with its line break.
        jsonl: whether a line is a JSON object with "text", or with "candidate" and either
            "context" or "messages".

    Raises:
        InvalidInputError: a line cannot be scored; the message has its number and the reason.
    """
    parse = lines.from_json if jsonl else lines.from_text
    for number, data in enumerate(file, start=1):
        item = parse(number, data.removeprefix(BOM) if number == 1 else data)
        if isinstance(item, lines.Rejection):
            raise InvalidInputError(f"line {number}: {item.reason}", row=number - 1)
        if item.is_group:
            raise InvalidInputError(
                f"line {number} has a list of candidates, but one reward per line is printed; "
                "score groups with --input and --output",
                row=number - 1,
            )
        yield item


@contextlib.contextmanager
def line_numbers(first: int) -> Iterator[None]:
    """Make errors name the line of a file instead of the row; row 0 is line `first`."""
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
