"""Shared prefixes of rows, computed once: a prefix tree per group, flattened for one forward pass.

A row is a context and its candidate, and the rows of a conversation share most of their tokens.
A token that rows share takes one place; a place attends only to itself and its ancestors, and
has its depth as its position, so that every row gets the logit that it would get by itself. A
single row is a tree without branches.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from reward_contract import CONTRACT

ROOT = -1
NO_LABEL = -100.0  # what transformers pads labels with


class PrefixTree:
    """A prefix tree of rows of token ids, added one by one; parents come before their children.

    Attributes:
        input_ids: token of each of the T places.
        parents: place of the token before each, or -1.
        scored: place of each row's scored token.

    Example:
        >>> tree = PrefixTree()
        >>> tree.add([5, 6, 7]), tree.n_new([5, 6, 8]), tree.add([5, 6, 8])
        (None, 1, None)
        >>> tree.input_ids, tree.parents, tree.scored
        ([5, 6, 7, 8], [-1, 0, 1, 1], [2, 3])
    """

    def __init__(self) -> None:
        self.input_ids: list[int] = []
        self.parents: list[int] = []
        self.scored: list[int] = []
        self._places: dict[tuple[int, int], int] = {}

    def n_new(self, row: Sequence[int]) -> int:
        """Places that a row would add."""
        tokens, place = _without_padding(row), ROOT
        for depth, token in enumerate(tokens):
            if (place, token) not in self._places:
                return len(tokens) - depth
            place = self._places[place, token]
        return 0

    def add(self, row: Sequence[int]) -> None:
        """Add a row.

        Its scored token is the contract's: the rightmost that is not a pad, or position 0.
        """
        place = ROOT
        for token in _without_padding(row):
            before, place = place, self._places.setdefault((place, token), len(self.input_ids))
            if place == len(self.input_ids):
                self.input_ids.append(token)
                self.parents.append(before)
        self.scored.append(place)


def _without_padding(row: Sequence[int]) -> Sequence[int]:
    length = len(row)
    while length and row[length - 1] == CONTRACT.pad_token_id:
        length -= 1
    return row[:length] if length else [CONTRACT.pad_token_id]


def token_labels(tree: PrefixTree, labels: Sequence[float], n_own: Sequence[int]) -> list[float]:
    """The label of each place: the mean over the rows whose candidates it belongs to.

    Args:
        tree: R rows in T places.
        labels: of each row.
        n_own: how many tokens of each row are the candidate's.

    Returns:
        T labels; -100 for places of contexts.
    """
    sums, counts = np.zeros(len(tree.parents)), np.zeros(len(tree.parents))
    for place, label, n_tokens in zip(tree.scored, labels, n_own, strict=True):
        for _ in range(n_tokens):
            if place == ROOT:
                break
            sums[place] += label
            counts[place] += 1
            place = tree.parents[place]  # noqa: PLW2901  # a walk to the root
    means: list[float] = np.where(counts, sums / np.maximum(counts, 1), NO_LABEL).tolist()
    return means


def collate(groups: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, torch.Tensor]:
    """A batch of G groups, padded to T places and R rows, the most that one of them has.

    Args:
        groups: each has `input_ids`, `parents`, `token_labels` [T] and `scored`, `labels` [R].

    Returns:
        What `PackedClassifier.forward` takes.
    """
    size = (len(groups), max(len(group["input_ids"]) for group in groups))
    n_rows = max(len(group["labels"]) for group in groups)
    ids = np.full(size, CONTRACT.pad_token_id, np.int64)
    of_tokens = np.full(size, NO_LABEL, np.float32)
    depths = np.zeros(size, np.int64)
    # a padding place attends to itself, or its softmax would be NaN
    mask = np.broadcast_to(np.eye(size[1], dtype=bool), (size[0], size[1], size[1])).copy()
    scored = np.zeros((len(groups), n_rows), np.int64)
    labels = np.full((len(groups), n_rows), NO_LABEL, np.float32)
    for g, group in enumerate(groups):
        ids[g, : len(group["input_ids"])] = group["input_ids"]
        of_tokens[g, : len(group["token_labels"])] = group["token_labels"]
        _hang(np.asarray(group["parents"], np.int64), mask[g], depths[g])
        scored[g, : len(group["scored"])] = group["scored"]
        labels[g, : len(group["labels"])] = group["labels"]
    return {
        "input_ids": torch.from_numpy(ids),
        "position_ids": torch.from_numpy(depths),
        "attention_mask": torch.from_numpy(mask)[:, None],
        "scored": torch.from_numpy(scored),
        "labels": torch.from_numpy(labels),
        "token_labels": torch.from_numpy(of_tokens),
    }


def _hang(parents: NDArray[np.int64], mask: NDArray[np.bool_], depths: NDArray[np.int64]) -> None:
    """Fill in what each place attends to, and its depth."""
    for place, parent in enumerate(parents):
        if parent != ROOT:
            mask[place] |= mask[parent]
            depths[place] = depths[parent] + 1
