"""Rank candidate replies to a context, best first."""

import argparse
import json
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

from reward_client.arguments import add_connection, open_client
from reward_client.errors import InvalidInputError
from reward_client.results import RankedCandidate
from reward_text import Context, context_of

EXTRA = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `gpt2-reward rank`."""
    context = parser.add_mutually_exclusive_group(required=True)
    context.add_argument("--context", help="The conversation so far, as text.")
    context.add_argument(
        "--messages",
        metavar="FILE",
        help='The conversation so far, as a JSON list of messages or an object with "messages". It '
        "is rendered in the model's format. Use - for standard input.",
    )
    parser.add_argument(
        "candidates",
        nargs="+",
        metavar="CANDIDATE",
        help="A reply to rank. It is appended to a --context unchanged: begin it with a space or a "
        "line break if one belongs there.",
    )
    parser.add_argument("--json", action="store_true", help="Print a JSON list, for programs.")
    add_connection(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the candidates, best first."""
    with open_client(arguments) as client:
        candidates = client.rank(_context(arguments), arguments.candidates)
    if arguments.json:
        fields = ("text", "reward", "index", "probability")
        print(json.dumps([{name: getattr(c, name) for name in fields} for c in candidates]))
    else:
        print(table(candidates))
    return 0


def _context(arguments: argparse.Namespace) -> Context:
    if arguments.messages is None:
        return str(arguments.context)
    try:
        file = arguments.messages
        found = json.loads(sys.stdin.read() if file == "-" else Path(file).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"cannot read {arguments.messages} as JSON: {error}") from error
    return context_of(found if isinstance(found, dict) else {"messages": found})


def table(candidates: Iterable[RankedCandidate], *, width: int | None = None) -> str:
    """Ranked candidates as lines to read, the best one marked with `*`.

    Args:
        candidates: best first.
        width: how many characters of a candidate are shown; all if None.
    """
    return "\n".join(
        f"{'*' if rank == 1 else ' '} {rank:>2}  {candidate.reward:>+9.4f}  "
        f"{_on_one_line(candidate.text, width)}"
        for rank, candidate in enumerate(candidates, start=1)
    )


def _on_one_line(text: str, width: int | None) -> str:
    # control characters could move the cursor, or worse, in the reader's terminal
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return textwrap.shorten(line, width, placeholder=" …") if width else line
