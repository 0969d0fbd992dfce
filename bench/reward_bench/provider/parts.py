"""The steps of the suite `provider`. Each runs in a process of its own and gives figures as JSON.

The graphs are those for CUDA; on a CPU, only those of them that a CPU can run.
"""

import os
import resource
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray
from onnxruntime import InferenceSession

from reward_bench.checkpoints import checkpoint_of
from reward_bench.load import closed_loop, drive, percentiles_ms
from reward_bench.pools import chat_pools
from reward_bench.provider import kernels
from reward_bench.provider.batches import Row, best_of_4, cases, changing
from reward_bench.provider.bench import CPU, Bench, Figures, tried
from reward_bench.provider.debug import said_of_attention
from reward_bench.provider.grid import can_be_scored, grid
from reward_bench.provider.steps import short
from reward_bench.serving import answered, host, rows_a_second
from reward_export.batches import groups_of_candidates, other_batches
from reward_export.checkpoint import load
from reward_export.precision import PRECISIONS
from reward_export.random_checkpoint import random_checkpoint
from reward_export.ranks import spearman
from reward_serve.verify import Target, verify
from reward_text import pad_rows

REFERENCE = "fp32 looped"
IN_FLIGHT = 8  # calls, at Triton
LEAST_ROUNDS = 2  # the first one allocates memory

Ids = NDArray[np.int32]


def device(bench: Bench) -> Figures:
    """The device's name and versions, after it has multiplied two matrices."""
    kernels.product_tflops(bench.providers, 256, 1)
    found: Figures = {"onnxruntime": onnxruntime.__version__}
    if bench.setting.device == "cuda":
        fields = ("name", "driver_version", "memory.total", "compute_cap", "power.limit")
        found |= zip(fields, _nvidia_smi("--query-gpu", fields)[0], strict=True)
    return found


def graphs(bench: Bench) -> Figures:
    """Write the graph of each form, and the reference's."""
    checkpoint = load(checkpoint_of(bench.setting, bench.folder / "checkpoint"))
    wanted = {REFERENCE: (PRECISIONS["fp32"], PRECISIONS["fp32"].form("cpu")), **bench.forms()}
    for name, (precision, form) in wanted.items():
        path = bench.graph(name)
        ir.save(precision.build(checkpoint, form), path, external_data=f"{path.name}.data")
    architecture = checkpoint.architecture
    return {"n_layer": architecture.n_layer, "n_embd": architecture.n_embd, "written": [*wanted]}


def every_batch(bench: Bench) -> Figures:
    """Score batches of every shape with two layers of each form: answers, errors, kernels."""
    source = random_checkpoint(bench.folder / "grid", n_layer=2, n_head=2, n_embd=128)
    checkpoint = load(str(source))
    batches = {n: ids for n, ids in grid().items() if ids.size <= bench.most_positions}

    def measure(form: str) -> Figures:
        precision, chosen = bench.forms()[form]
        path = bench.folder / f"grid {form}.onnx"
        ir.save(precision.build(checkpoint, chosen), path)
        with said_of_attention() as kernels_used:
            session = bench.open(path)
            failed = {n: e for n, ids in batches.items() if (e := _failure(session, ids))}
        return {"batches": len(batches), "failed": failed, "attention": dict(kernels_used)}

    return bench.each_form(measure)


def _failure(session: InferenceSession, ids: Ids) -> str:
    """Why a batch was not answered correctly; empty if it was."""
    try:
        rewards = score(session, ids)
    except Exception as error:  # noqa: BLE001 ONNX Runtime raises many kinds
        return short(error)
    wrong = np.isfinite(rewards) != can_be_scored(ids)
    return f"{wrong.sum()} of {len(ids)} rows are wrongly NaN or a reward" if wrong.any() else ""


def score(session: InferenceSession, ids: Ids) -> NDArray[np.float32]:
    """int32 [B, S] to float32 [B]."""
    rewards: NDArray[np.float32] = session.run(None, {"input_ids": ids})[0][:, 0]
    return rewards


def parity(bench: Bench) -> Figures:
    """Each form's rewards against those of float32 on the CPU, over real conversations."""
    groups, others = list(groups_of_candidates()), list(other_batches(1024))
    batches = [ids for ids in (*groups, *others) if ids.size <= bench.most_positions]
    reference = InferenceSession(str(bench.graph(REFERENCE)), providers=[CPU])
    wanted = [score(reference, ids) for ids in batches]
    n_groups = sum(ids.size <= bench.most_positions for ids in groups)

    def measure(form: str) -> Figures:
        session, tolerance = bench.open(bench.graph(form)), bench.forms()[form][0].tolerance
        found = [score(session, ids) for ids in batches]
        alone = [
            abs(score(session, ids[-1:])[0] - rewards[-1])
            for ids, rewards in zip(batches, found, strict=True)
        ]
        std = float(np.concatenate(wanted).std())
        best = [w.argmax() == f.argmax() for w, f in zip(wanted, found, strict=True)][:n_groups]
        return {
            "rows": sum(map(len, batches)),
            "max_difference": max(
                float(np.abs(w - f).max()) for w, f in zip(wanted, found, strict=True)
            ),
            "limit": tolerance.max_difference * (std if tolerance.in_reward_stds else 1.0),
            "reward_std": std,
            "spearman": spearman(np.concatenate(wanted), np.concatenate(found)),
            "best_agreement": float(np.mean(best)),
            "batch_effect": float(max(alone)),
        }

    return bench.each_form(measure)


def kernels_alone(bench: Bench) -> Figures:
    """Product, gather and attention alone."""
    n_rows, size = max(2, min(128, bench.most_positions // 2048)), 256
    alone: dict[str, Callable[..., float]] = {
        "product_tflops": partial(kernels.product_tflops, n_rows=n_rows * size),
        "gather_gbs": partial(kernels.gather_gbs, n_rows=n_rows * size),
        "padded_attention_tflops": partial(
            kernels.padded_attention_tflops, n_rows=n_rows, size=size
        ),
        "varlen_attention_tflops": partial(
            kernels.varlen_attention_tflops, n_rows=n_rows, size=size
        ),
    }
    if bench.setting.device == "cpu":
        del alone["varlen_attention_tflops"]  # only on CUDA
    providers, rounds = bench.providers, bench.setting.rounds

    def measure(kernel: Callable[..., float]) -> Figures:
        return {"value": kernel(providers, rounds=rounds)}

    return {name: tried(partial(measure, kernel)) for name, kernel in alone.items()}


def throughput(bench: Bench) -> Figures:
    """Milliseconds by case, the least of some rounds, and best-of-4 latency, for each form."""
    known = {n: rows for n, rows in cases().items() if _positions(rows) <= bench.most_positions}

    def measure(form: str) -> Figures:
        session = bench.open(bench.graph(form))
        return {
            "ms": {name: _least_ms(session, rows, bench) for name, rows in known.items()},
            "best_of_4": _latency(session, bench),
        }

    return bench.each_form(measure, "fp16")


def _positions(rows: list[Row]) -> int:
    return len(rows) * max(map(len, rows))


def _least_ms(session: InferenceSession, rows: list[Row], bench: Bench) -> float:
    """Least milliseconds of the rounds, or of as many as the seconds allow; at least two."""
    ids, taken = pad_rows(rows), list[float]()
    while len(taken) < LEAST_ROUNDS or (
        len(taken) < bench.setting.rounds and sum(taken) < bench.setting.seconds
    ):
        taken.append(_timed(session, ids))
    return min(taken) * 1e3


def _timed(session: InferenceSession, ids: Ids) -> float:
    start = time.perf_counter()
    score(session, ids)
    return time.perf_counter() - start


def _latency(session: InferenceSession, bench: Bench) -> Figures:
    """Latency of best-of-4 calls one after another, each with other tokens."""
    n_calls = 10 * bench.setting.rounds
    calls = [pad_rows(rows) for rows in best_of_4(n_calls)]
    return {"calls": n_calls, **percentiles_ms([_timed(session, ids) for ids in calls])}


def memory(bench: Bench) -> Figures:
    """Memory after each tenth of many batches of changing rows, lengths and sharing."""

    def measure(form: str) -> Figures:
        session, seen = bench.open(bench.graph(form)), []
        for number, rows in enumerate(changing(bench.n_batches), 1):
            score(session, pad_rows(rows))
            if number % max(1, bench.n_batches // 10) == 0:
                seen.append({"batches": number, "mib": used_mib(bench.setting.device)})
        return {"seen": seen}

    return bench.each_form(measure, "fp16")


def used_mib(kind: str) -> float:
    """Mebibytes of the GPU's memory that this process holds; on a CPU, of the machine's."""
    if kind == "cpu":
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20
    held = _nvidia_smi("--query-compute-apps", ("pid", "used_memory"))
    own = [float(mib) for pid, mib in held if pid == str(os.getpid())]
    if own:
        return sum(own)
    # in a container the driver does not know this process's number: all of the GPU's memory
    return float(_nvidia_smi("--query-gpu", ("memory.used",))[0][0])


def _nvidia_smi(query: str, fields: tuple[str, ...]) -> list[list[str]]:
    command = ["nvidia-smi", f"{query}={','.join(fields)}", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line.split(", ") for line in done.stdout.splitlines() if line]


def triton(bench: Bench) -> Figures:
    """A float16 version, exported and served from the repository: golden rows, speed, latency."""
    setting = replace(bench.setting, precision="fp16")
    with host(setting) as served:
        golden = list(verify(Target(served.url)))
        pools = {"short": chat_pools(8, setting.seed)["short"]}
        pools["best of 4"] = [pad_rows(rows) for rows in best_of_4(8)]
        requests = answered(served, pools)
        (calls,) = drive(served.url, (served.load(requests["best of 4"]), closed_loop(1, 1.0)))
        return {
            "golden_rows": len(golden),
            "golden_rows_right": sum(row.is_right for row in golden),
            "rows_per_s": rows_a_second(served, requests["short"], IN_FLIGHT),
            "best_of_4": percentiles_ms([c.latency_s for c in calls if c.outcome == "ok"]),
        }


STEPS: Mapping[str, tuple[Callable[[Bench], Figures], float]] = {
    "device": (device, 0.04),
    "every batch": (every_batch, 0.12),
    "kernels alone": (kernels_alone, 0.08),
    "graphs": (graphs, 0.14),
    "parity": (parity, 0.18),
    "throughput": (throughput, 0.12),
    "memory": (memory, 0.12),
    "Triton": (triton, 0.20),
}
"""The steps in order, by name: what each runs, and its share of the time limit."""
