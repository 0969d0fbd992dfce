"""Batches whose time is predicted and measured, and batches of changing shape."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from reward_bench.workloads import workloads
from reward_contract import CONTRACT

Row = NDArray[np.int32]

SHARED, TAIL = 160, 48  # tokens of a chat's context, and of each of its candidates
CHATS = (1, 4, 16, 64)  # contexts, with eight candidates each
FULL_ROWS = (8, 32, 128, 256)


def cases() -> dict[str, list[Row]]:
    """Rows by name: the workloads of the graph's benchmarks, chats, and full rows."""
    rng = np.random.default_rng(0)
    found = dict(workloads())
    for n in CHATS:
        found[f"{8 * n} rows of chats"] = [row for _ in range(n) for row in _group(rng, 8)]
    for n in FULL_ROWS:
        found[f"{n} full rows"] = [_ids(rng, CONTRACT.max_tokens) for _ in range(n)]
    return found


def best_of_4(n_calls: int) -> list[list[Row]]:
    """Groups of four candidates."""
    rng = np.random.default_rng(1)
    return [_group(rng, 4) for _ in range(n_calls)]


def changing(n_batches: int) -> Iterator[list[Row]]:
    """Batches of any number of rows, lengths and shared tokens, the same at every call."""
    rng = np.random.default_rng(0)
    for _ in range(n_batches):
        shared = _ids(rng, int(rng.integers(0, 200)))
        n_rows = int(rng.integers(1, 65))
        yield [np.concatenate([shared, _ids(rng, int(rng.integers(1, 57)))]) for _ in range(n_rows)]


def _group(rng: np.random.Generator, n_candidates: int) -> list[Row]:
    context = _ids(rng, SHARED)
    return [np.concatenate([context, _ids(rng, TAIL)]) for _ in range(n_candidates)]


def _ids(rng: np.random.Generator, n: int) -> Row:
    return rng.integers(0, CONTRACT.pad_token_id, n, dtype=np.int32)
