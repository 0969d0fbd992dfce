"""A published graph on an execution provider: parity, node placement, memory over many shapes.

    python bench/provider.py model_repository/gpt2_reward/1 --provider CUDAExecutionProvider

Compares with the CPU provider, lists the operators that ONNX Runtime placed on the CPU, and
runs batches of ever changing shape while it watches the device's memory. On a GPU give it
the limits that a server would have: --option gpu_mem_limit=8589934592
--option arena_extend_strategy=kSameAsRequested.
"""

import argparse
import collections
import json
import os
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
from machine import describe
from numpy.typing import NDArray
from workloads import workloads

from reward_text import pad_rows

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
Rewards = NDArray[np.float32]


def open_session(
    graph: Path, providers: list[tuple[str, dict[str, str]]], *, profile: str = ""
) -> onnxruntime.InferenceSession:
    """A session on these providers, profiled into files of this prefix if it is given."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling = bool(profile)
    if profile:
        options.profile_file_prefix = profile
    return onnxruntime.InferenceSession(str(graph), options, providers=providers)


def run(session: onnxruntime.InferenceSession, ids: NDArray[np.int32]) -> Rewards:
    """int32 [B, S] to float32 [B]."""
    return session.run(None, {"input_ids": ids})[0][:, 0]


def parity(
    session: onnxruntime.InferenceSession, reference: onnxruntime.InferenceSession
) -> dict[str, float]:
    """Largest difference from the CPU provider by workload; a poisoned row answers NaN alone."""
    found = {}
    for name, rows in workloads().items():
        ids = pad_rows(rows)
        found[name] = float(np.abs(run(session, ids) - run(reference, ids)).max())
    ids = pad_rows(workloads()["a"])
    ids[3, 5] = -1
    poisoned = run(session, ids)
    assert np.isnan(poisoned).tolist() == [row == 3 for row in range(8)]  # noqa: S101, PLR2004
    return found


def placement(
    graph: Path, providers: list[tuple[str, dict[str, str]]]
) -> dict[str, dict[str, float]]:
    """For each provider, milliseconds by operator in one run of workload a."""
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(graph, providers, profile=f"{folder}/profile")
        run(session, pad_rows(workloads()["a"]))
        events = json.loads(Path(session.end_profiling()).read_text())
    spent: dict[str, dict[str, float]] = collections.defaultdict(collections.Counter)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            by_operator = spent[event["args"]["provider"]]
            by_operator[event["args"]["op_name"]] += event["dur"] / 1e3
    return {provider: dict(by_operator) for provider, by_operator in spent.items()}


def memory_mib(provider: str) -> float:
    """Of this process on the GPU; its peak on the machine where there is none."""
    if provider != CUDA:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    return sum(
        float(line.split(",")[1]) for line in lines if line.split(",")[0] == str(os.getpid())
    )


def many_shapes(
    session: onnxruntime.InferenceSession, provider: str, n_batches: int
) -> list[dict[str, float]]:
    """Memory after each tenth of batches of random rows, lengths and sharing."""
    rng = np.random.default_rng(0)
    seen = []
    for number in range(1, n_batches + 1):
        shared, n_rows = rng.integers(0, 50_000, rng.integers(0, 200)), rng.integers(1, 65)
        tails = (rng.integers(0, 50_000, rng.integers(1, 57)) for _ in range(n_rows))
        run(session, pad_rows([np.concatenate([shared, tail]).astype(np.int32) for tail in tails]))
        if number % max(1, n_batches // 10) == 0:
            seen.append({"batches": number, "memory_mib": memory_mib(provider)})
    return seen


def throughput(session: onnxruntime.InferenceSession, rounds: int) -> dict[str, float]:
    """Rows a second by workload, from the fastest of some rounds."""
    found = {}
    for name, rows in workloads().items():
        ids, seconds = pad_rows(rows), []
        for _ in range(rounds):
            start = time.perf_counter()
            run(session, ids)
            seconds.append(time.perf_counter() - start)
        found[name] = len(rows) / min(seconds)
    return found


def main() -> None:
    """Measure, and print or write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", type=Path, help="a version's folder, with model.onnx in it")
    parser.add_argument("--provider", default=CUDA)
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--batches", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    if given.provider == CUDA and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    own = (given.provider, dict(option.split("=", 1) for option in given.option))
    providers = [own] if given.provider == CPU else [own, (CPU, {})]
    graph = given.version / "model.onnx"
    session = open_session(graph, providers)
    if session.get_providers()[0] != given.provider:
        raise SystemExit(f"ONNX Runtime could not start {given.provider}")
    report = {
        **describe(os.cpu_count() or 1),
        "provider": given.provider,
        "manifest": json.loads((given.version / "manifest.json").read_text()),
        "max_difference_from_cpu": parity(session, open_session(graph, [(CPU, {})])),
        "ms_by_provider_and_operator": placement(graph, providers),
        "rows_per_s": throughput(session, given.rounds),
        "memory": many_shapes(session, given.provider, given.batches),
    }
    text = json.dumps(report, indent=1) + "\n"
    if given.output:
        given.output.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
