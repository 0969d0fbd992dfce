"""Labelled rows from JSONL, Parquet or the hub, as a trainer takes them: tokens, packed.

A row holds `context` or `messages`, `candidate`, and either `label` (1 accepted, 0 not) or what
Chai derived it from: `retry` and `remaining_user_messages`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetGenerationError

from reward_contract import CONTRACT
from reward_contract.errors import InvalidInputError
from reward_text import Format, Tokenizer, Usage, context_of
from reward_train.errors import DataError
from reward_train.labels import MIN_REMAINING, label_of
from reward_train.packing import PrefixTree, token_labels

READERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}


@dataclass(frozen=True, slots=True)
class RowRules:
    """How rows become items to train on.

    Attributes:
        min_remaining: a reply is accepted if there was no retry and the user sent at least this
            many further messages; for rows without a label.
        chat_format: renders "messages"; None if rows only have texts.
        max_tokens: the window: this many tokens are read, from the end of a text.
        pack: adjacent rows of the same `group` become one item of at most this many tokens, whose
            shared tokens are computed once; 0 for items of one row.
    """

    min_remaining: int = MIN_REMAINING
    pack: int = 0
    chat_format: Format | None = None
    max_tokens: int = CONTRACT.max_tokens

    @property
    def usage(self) -> Usage:
        """How a model trained on these rows has to be asked."""
        return Usage(self.chat_format, self.max_tokens)


def read_rows(source: str, *, split: str = "train") -> Dataset:
    """Rows of a file, or of a data set on the hub.

    Args:
        source: a path that ends in `.jsonl` or `.parquet`, or a hub id.
        split: of the data set on the hub; a file is one split.

    Raises:
        DataError: the source cannot be read, or has no rows.
    """
    path = Path(source)
    reader = READERS.get(path.suffix)
    if reader is not None and not path.is_file():
        raise DataError(f"there is no file {source}")
    try:
        if reader is None:
            rows = load_dataset(source, split=split)
        else:
            rows = load_dataset(reader, data_files=str(path), split="train")
    except Exception as error:  # each reader raises its own
        reason = str(error).strip().partition("\n")[0]
        raise DataError(
            f"{source} cannot be read as a JSONL or Parquet file, or as a data set on the hub: "
            f"{reason}"
        ) from error
    if not len(rows):
        raise DataError(f"{source} has no rows")
    return rows


def packed_items(rows: Dataset, rules: RowRules, cache: Path) -> Dataset:
    """Rows as `reward_train.packing.collate` takes them, with their `length` in tokens.

    Args:
        rows: from `read_rows`.
        rules: how rows become items.
        cache: folder for the tokens, which may be more than memory holds.

    Raises:
        DataError: a row cannot be used; the message has its index.
    """
    try:
        return Dataset.from_generator(
            _items, gen_kwargs={"rows": rows, "rules": rules}, cache_dir=str(cache)
        )
    except DatasetGenerationError as error:
        raise (error.__cause__ if isinstance(error.__cause__, DataError) else error) from None


def _items(rows: Dataset, rules: RowRules) -> Iterator[dict[str, Any]]:
    tokenizer, usage = Tokenizer(rules.max_tokens), rules.usage
    item, group = _Item(), None
    for number, row in enumerate(rows):
        try:
            context, (candidate,) = usage.texts(context_of(row), [row["candidate"]])
            tokens = tokenizer.encode(context + candidate).tolist()
            own, label = len(tokenizer.encode(candidate)), label_of(row, rules.min_remaining)
        except KeyError as error:
            raise DataError(f"row {number} has no {error}", row=number) from error
        except (TypeError, ValueError, InvalidInputError) as error:
            raise DataError(f"row {number}: {error}", row=number) from error
        fits = len(item.tree.input_ids) + item.tree.n_new(tokens) <= rules.pack
        if item.labels and not (fits and group == row.get("group") and group is not None):
            yield item.columns()
            item = _Item()
        group = row.get("group")
        item.tree.add(tokens)
        item.labels.append(label)
        item.n_own.append(own)
    yield item.columns()


@dataclass(slots=True)
class _Item:
    """Rows that are computed together."""

    tree: PrefixTree = field(default_factory=PrefixTree)
    labels: list[float] = field(default_factory=list)
    n_own: list[int] = field(default_factory=list)

    def columns(self) -> dict[str, Any]:
        labels = token_labels(self.tree, self.labels, self.n_own)
        return {
            "input_ids": np.array(self.tree.input_ids, np.int32),
            "parents": np.array(self.tree.parents, np.int32),
            "scored": np.array(self.tree.scored, np.int32),
            "labels": np.array(self.labels, np.float32),
            "token_labels": np.array(labels, np.float32),
            "length": len(self.tree.input_ids),
        }
