"""Turn dialogues into labelled rows to train on, and into groups to judge rewards by.

Dialogues are JSONL, one {"id": ..., "turns": [...]} per line, in which the two sides alternate;
or those of the package chitchat-dataset. docs/training.md says what the labels mean.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reward_client.arguments import format_argument
from reward_text import FORMATS
from reward_train import chitchat
from reward_train.dialogues import Dialogue, RowOptions, Split, groups, rows, split_of
from reward_train.errors import DataError

EXTRA = None
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `gpt2-reward rows`."""
    parser.add_argument(
        "output", type=Path, metavar="FOLDER", help="Write the files into this folder."
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--dialogues", type=Path, metavar="FILE", help="Read dialogues from this JSONL file."
    )
    source.add_argument(
        "--chitchat",
        action="store_true",
        help="Use the dialogues of the package chitchat-dataset (volunteers, MIT licence).",
    )
    parser.add_argument(
        "--continued",
        type=int,
        default=1,
        metavar="N",
        help="Label a reply as accepted if the partner sent at least N further turns.",
    )
    parser.add_argument(
        "--negatives",
        type=int,
        default=3,
        metavar="N",
        help="Add N replies from other conversations for each real one.",
    )
    parser.add_argument(
        "--candidates", type=int, default=16, metavar="N", help="Put N candidates into a group."
    )
    parser.add_argument("--seed", type=int, default=0, help="Start random draws from this seed.")
    parser.add_argument(
        "--format",
        dest="chat_format",
        type=format_argument,
        default="lines",
        metavar="NAME|FILE",
        help=f"Write texts in this format: {', '.join(FORMATS)}, or a JSON file.",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the rows and groups of each split, and print how many."""
    found = chitchat.dialogues() if arguments.chitchat else list(read(arguments.dialogues))
    options = RowOptions(
        continued=arguments.continued,
        n_negatives=arguments.negatives,
        seed=arguments.seed,
        chat_format=arguments.chat_format,
    )
    arguments.output.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        own = [dialogue for dialogue in found if split_of(dialogue.id) == split]
        n_rows = _write(arguments.output / f"{split}.jsonl", map(asdict, rows(own, options)))
        made = groups(
            own,
            n_candidates=arguments.candidates,
            seed=arguments.seed,
            chat_format=options.chat_format,
        )
        n_groups = _write(arguments.output / f"{split}-groups.jsonl", map(asdict, made))
        print(
            f"{split}: {len(own):,} dialogues, {n_rows:,} rows, {n_groups:,} groups",
            file=sys.stderr,
        )
    print(arguments.output)
    return 0


def read(file: Path) -> Iterator[Dialogue]:
    """Read the dialogues of a JSONL file.

    Raises:
        DataError: the file cannot be read, or a line is not a dialogue; the message has the
            line's number.
    """
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file}: {error}") from error
    for number, line in enumerate(lines, start=1):
        try:
            item = json.loads(line)
        except ValueError:
            item = None
        if not _is_dialogue(item):
            raise DataError(
                f'line {number} of {file} is not {{"id": string, "turns": [strings, none empty]}}',
                row=number - 1,
            )
        if len(item["turns"]) >= chitchat.MIN_TURNS:
            yield Dialogue(item["id"], tuple(item["turns"]))


def _is_dialogue(item: Any) -> bool:  # noqa: ANN401  # whatever JSON holds
    return (
        isinstance(item, dict)
        and isinstance(item.get("id"), str)
        and isinstance(item.get("turns"), list)
        and all(isinstance(turn, str) and turn.strip() for turn in item["turns"])
    )


def _write(file: Path, items: Iterable[dict[str, Any]]) -> int:
    n_items = 0
    with file.open("w", encoding="utf-8") as out:
        for item in items:
            known = {name: value for name, value in item.items() if value is not None}
            out.write(json.dumps(known, ensure_ascii=False) + "\n")
            n_items += 1
    return n_items
