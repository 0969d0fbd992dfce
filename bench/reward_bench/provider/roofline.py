"""How long a batch should take on a GPU: launches, bytes and operations, and guesses of efficiency.

A model, not a measurement. The launches of a layer are those that the dry run counts; the three
efficiencies, of products, gathers and attention, are guesses until they are measured on a device.
A wrong prediction is due to these or to what the model leaves out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.int32]

STREAM = 0.75  # of the memory's bandwidth, for kernels that read and write line by line
FLOOR_S, LAUNCH_S = 2.5e-6, 3.0e-6  # least time of a kernel; the host's time for a launch
FRONT_S, FRONT_ROW_S = 7e-5, 1.5e-5  # the plan on the CPU with its copies, and more for each row
LAST_BLOCK = 0.27  # of a block: keys and values of all tokens, the rest for one token per row
LAUNCHES = {"padded": 15.6, "varlen": 13.4}  # and products, per layer, from the dry run
HALF = 2  # bytes of float16
TILE = 64  # queries and keys of the attention kernel's tiles
PRODUCT_TILES = ((128, 256), (128, 128), (64, 128), (64, 64))  # cuBLAS's usual ones


@dataclass(frozen=True)
class Gpu:
    """What a GPU's data sheet says, or others have measured.

    Attributes:
        peak_tflops: of dense float16 products.
        bandwidth_tbs: terabytes per second of its memory.
        n_multiprocessors: streaming multiprocessors.
        attention_tflops: a guess of what the memory-efficient attention kernel reaches.
    """

    peak_tflops: float
    bandwidth_tbs: float
    n_multiprocessors: int
    attention_tflops: float


# H200 and H100: a product as others have measured it, not the data sheet's 989
GPUS = {
    "H200": Gpu(790, 4.8, 132, 160),
    "H100 80GB HBM3": Gpu(790, 3.35, 132, 160),
    "A100": Gpu(312, 2.0, 108, 100),
    "A10G": Gpu(70, 0.6, 80, 30),
    "L4": Gpu(66.5, 0.3, 58, 30),
}


@dataclass(frozen=True)
class Efficiencies:
    """What kernels reach if they fill the device.

    Attributes:
        product: share of the peak.
        gather: share of the memory's bandwidth.
        attention: TFLOP/s, counted over whole tiles.
    """

    product: float
    gather: float
    attention: float


@dataclass(frozen=True)
class Model:
    """A GPT-2's size."""

    n_layer: int
    n_embd: int


@dataclass(frozen=True)
class Plan:
    """What a batch costs in one layer, as planned at the front of the graph.

    Attributes:
        n_rows: as sent.
        n_tokens: those that differ.
        n_keys: gathered, and as many values.
        n_queries: gathered, and scattered back; none in the varlen form.
        pairs: of queries and keys, in whole tiles.
    """

    n_rows: int
    n_tokens: int
    n_keys: int
    n_queries: int
    pairs: int


def gpu_named(name: str) -> Gpu | None:
    """The GPU by its driver's name, such as `NVIDIA A100-SXM4-80GB`; None if it is not known."""
    words = name.replace("-", " ")
    return next((gpu for known, gpu in GPUS.items() if f" {known} " in f" {words} "), None)


def guesses(gpu: Gpu) -> Efficiencies:
    """The three efficiencies as assumed before any device was measured."""
    return Efficiencies(product=0.80, gather=0.50, attention=gpu.attention_tflops)


def plan(rows: Sequence[Row], form: str) -> Plan:
    """What a batch costs in one layer of a form of the graph.

    Args:
        rows: unpadded ids.
        form: `padded` or `varlen`.
    """
    stretches = _stretches(rows)
    n_tokens = sum(n for _first, n in stretches)
    if form == "varlen":
        mean = n_tokens // len(stretches)
        chunks = _cut(stretches, max((mean + TILE // 2) // TILE, 1) * TILE)
        n_keys = sum(first + n for first, n in chunks)
        pairs = sum(_causal_tiles(first, n) for first, n in chunks)
        return Plan(len(rows), n_tokens, n_keys, 0, pairs)
    size = _up(math.ceil(n_tokens / len(stretches)), 8)
    longest, n_chunks = _up(max(map(len, rows)), 8), len(_cut(stretches, size))
    pairs = n_chunks * _up(size, TILE) * _up(longest, TILE)
    return Plan(len(rows), n_tokens, n_chunks * longest, n_chunks * size, pairs)


def _stretches(rows: Sequence[Row]) -> list[tuple[int, int]]:
    """For each distinct row, the position where it leaves the tree, and its tokens from there."""
    ordered = sorted({tuple(row.tolist()) for row in rows})
    found = []
    for before, row in zip([(), *ordered], ordered, strict=False):
        pairs = enumerate(zip(before, row, strict=False))
        ends = min(len(before), len(row))
        shared = next((i for i, (a, b) in pairs if a != b), ends)
        found.append((shared, len(row) - shared))
    return found


def _cut(stretches: Sequence[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    return [
        (first + offset, min(size, n - offset))
        for first, n in stretches
        for offset in range(0, n, size)
    ]


def _causal_tiles(first: int, n: int) -> int:
    """Pairs in the tiles that a chunk of `n` queries touches, from position `first` on."""
    ends = (first + min(start + TILE, n) for start in range(0, n, TILE))
    return sum(TILE * _up(end, TILE) for end in ends)


def _up(x: int, unit: int) -> int:
    return -(-x // unit) * unit


def seconds(gpu: Gpu, efficiencies: Efficiencies, model: Model, form: str, work: Plan) -> float:
    """The time of one run, from the host's array of ids to its array of rewards.

    Args:
        gpu: the device.
        efficiencies: guessed or measured.
        model: its size.
        form: `padded` or `varlen`.
        work: see `plan`.
    """
    layer = sum(layer_seconds(gpu, efficiencies, model.n_embd, work).values())
    on_gpu = layer * (model.n_layer - 1 + LAST_BLOCK)
    on_host = LAUNCHES[form] * model.n_layer * LAUNCH_S
    return max(on_gpu, on_host) + FRONT_S + FRONT_ROW_S * work.n_rows


def layer_seconds(
    gpu: Gpu, efficiencies: Efficiencies, n_embd: int, work: Plan
) -> dict[str, float]:
    """The GPU's time for one layer in float16, by part."""
    line = HALF * work.n_tokens * n_embd  # bytes of [T, H]

    def stream(n_bytes: float, share: float = STREAM) -> float:
        return max(FLOOR_S, n_bytes / (gpu.bandwidth_tbs * 1e12 * share))

    def product(n: int, k: int) -> float:
        return _product(gpu, efficiencies.product, work.n_tokens, n, k)

    gathered = 2 * [2 * HALF * work.n_keys * n_embd]  # read and written, for keys and for values
    if work.n_queries:
        gathered += [2 * HALF * work.n_queries * n_embd, 2 * line]
    return {
        "products": 4 * product(n_embd, n_embd)
        + product(4 * n_embd, n_embd)
        + product(n_embd, 4 * n_embd),
        "bias of queries": stream(2 * line),
        "norms": 2 * stream(4 * line),
        "gelu": stream(8 * line),
        "gathers": sum(stream(n_bytes, efficiencies.gather) for n_bytes in gathered),
        "attention": max(FLOOR_S, 4 * work.pairs * n_embd / (efficiencies.attention * 1e12)),
    }


def _product(gpu: Gpu, efficiency: float, m: int, n: int, k: int) -> float:
    """The longest of: whole waves of the least wasteful tile, the bytes, a kernel's least time."""
    waves = min(
        math.ceil(math.ceil(m / a) * math.ceil(n / b) / gpu.n_multiprocessors) * a * b
        for a, b in PRODUCT_TILES
    )
    operations = 2 * waves * gpu.n_multiprocessors * k
    n_bytes = HALF * (m * k + k * n + m * n)
    return max(
        FLOOR_S,
        operations / (gpu.peak_tflops * 1e12 * efficiency),
        n_bytes / (gpu.bandwidth_tbs * 1e12 * STREAM),
    )
