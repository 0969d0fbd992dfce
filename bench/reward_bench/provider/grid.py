"""Batches of every shape that a server may be sent, for dry runs and for real ones."""

import numpy as np
from numpy.typing import NDArray

PAD, VOCABULARY, POSITIONS = 50256, 50257, 1024
Ids = NDArray[np.int32]


def grid() -> dict[str, Ids]:
    """int32 [B, S] by name: edges, best-of-N around the fused kernel's limits, the largest."""
    rng = np.random.default_rng(0)
    batches = dict[str, NDArray[np.int32]]()
    # 84 to 88 queries per row, and 217 to 224 keys: unaligned, the kernel failed with an error
    for longest in range(217, 225):
        tail = int((88 - longest / 8) * 8 / 7)
        batches[f"best of 8, {longest} keys"] = chat(rng, 1, 8, longest - tail, tail)
    for n_rows in (1, 2, 7, 33, 128):
        for length in (1, 2, 7, 8, 9, 63, 64, 65, 255, 256):
            batches[f"{n_rows} x {length}"] = _ids(rng, (n_rows, length))
    for number in range(40):  # any mean stretch, any longest row
        groups, n, shared, tail = (int(rng.integers(1, top)) for top in (6, 17, 300, 120))
        ids = chat(rng, groups, n, shared, tail)
        ends = rng.integers(1, ids.shape[1] + 1, (len(ids), 1))
        keeps = rng.random((len(ids), 1)) < 0.5  # noqa: PLR2004 half of them
        cut = np.where((np.arange(ids.shape[1]) < ends) | keeps, ids, PAD)
        batches[f"mixed {number}"] = cut
    batches |= _edges(rng)
    return {name: np.ascontiguousarray(ids, np.int32) for name, ids in batches.items()}


def chat(rng: np.random.Generator, groups: int, n: int, shared: int, tail: int) -> Ids:
    """`groups` contexts of `shared` tokens with `n` candidates of `tail` each."""
    contexts = np.repeat(_ids(rng, (groups, shared)), n, axis=0)
    return np.concatenate([contexts, _ids(rng, (groups * n, tail))], axis=1)


def _ids(rng: np.random.Generator, shape: tuple[int, ...]) -> Ids:
    return rng.integers(0, PAD, shape, dtype=np.int32)


def _edges(rng: np.random.Generator) -> dict[str, Ids]:
    poisoned = chat(rng, 2, 4, 20, 9)
    poisoned[1, 3], poisoned[2, 5] = -1, VOCABULARY
    long = np.full((3, POSITIONS + 9), PAD)
    long[0, :POSITIONS], long[1], long[2, :5] = 5, 7, 9
    return {
        "pads alone": np.full((4, 16), PAD),
        "no positions": np.zeros((2, 0)),
        "equal rows": np.repeat(_ids(rng, (1, 50)), 30, axis=0),
        "poisoned": poisoned,
        "too long": long,
        "all poisoned": np.full((5, 30), -1),
        "one long row": np.where(np.arange(1024) < np.r_[1024, [1] * 31][:, None], 3, PAD),
        "1024 rows of 1": _ids(rng, (1024, 1)),
        "1 row of 1024": _ids(rng, (1, 1024)),
        "1024 rows of 256": _ids(rng, (1024, 256)),
        "512 rows, chats": chat(rng, 64, 8, 160, 48),
        "1024 rows of 1024": _ids(rng, (1024, 1024)),
    }


def can_be_scored(ids: Ids) -> NDArray[np.bool_]:
    """Whether each row has a reward rather than NaN. [B, S] -> [B]."""
    known = ((ids >= 0) & (ids < VOCABULARY)).all(axis=1)
    scored: NDArray[np.bool_] = known & (ids[:, POSITIONS:] == PAD).all(axis=1)
    return scored
