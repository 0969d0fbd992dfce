"""Groups of candidates of which the best is known, from a JSONL file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reward_contract.errors import InvalidInputError
from reward_text import context_of
from reward_train.dialogues import LabelledGroup
from reward_train.errors import DataError

MIN_CANDIDATES = 2  # a single one is always the best


def read_groups(file: Path, *, limit: int | None = None) -> list[LabelledGroup]:
    """Read groups from a file, a JSON object per line: "context", "candidates", "best" (an index).

    Instead of "context", there may be "messages", which are rendered in the model's format.

    "worst", the index of a candidate that must not be chosen, is optional.

    Args:
        file: to read.
        limit: how many groups to read at most; all if None.

    Raises:
        DataError: the file cannot be read or has no groups, or a line is not a group; the message
            has the line's number.
    """
    groups: list[LabelledGroup] = []
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if len(groups) == limit:
                    break
                groups.append(_group(line, number))
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error
    if not groups:
        raise DataError(f"{file} has no groups")
    return groups


def _group(line: bytes, number: int) -> LabelledGroup:
    try:
        item = json.loads(line)
    except ValueError as error:
        raise DataError(f"line {number} is not JSON", row=number - 1) from error
    if not _is_group(item):
        raise DataError(
            f'line {number} is not {{"context": string, or "messages": list, '
            '"candidates": [two strings or more], "best": index of one of them, '
            '"worst": index of another, or left out}',
            row=number - 1,
        )
    try:
        context = context_of(item)
    except InvalidInputError as error:
        raise DataError(f"line {number}: {error}", row=number - 1) from error
    return LabelledGroup(context, tuple(item["candidates"]), item["best"], item.get("worst"))


def _is_group(item: Any) -> bool:  # noqa: ANN401  # whatever JSON holds
    return (
        isinstance(item, Mapping)
        and (isinstance(item.get("context"), str) or isinstance(item.get("messages"), list))
        and isinstance(candidates := item.get("candidates"), list)
        and len(candidates) >= MIN_CANDIDATES
        and all(isinstance(candidate, str) for candidate in candidates)
        and _is_index(item.get("best"), candidates)
        and (item.get("worst") is None or _is_index(item["worst"], candidates))
        and item["best"] != item.get("worst")
    )


def _is_index(value: object, candidates: list[str]) -> bool:
    return type(value) is int and 0 <= value < len(candidates)
