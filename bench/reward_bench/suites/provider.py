"""A published graph on an execution provider: parity, node placement, memory over many shapes.

    python -m reward_bench provider --device cuda --provider-version model_repository/gpt2_reward/1

Compares with the CPU provider, lists the operators that ONNX Runtime placed on the CPU, and
runs batches of ever changing shape while it watches the device's memory. On a GPU give it
the limits that a server would have: --provider-options gpu_mem_limit=8589934592
arena_extend_strategy=kSameAsRequested.
"""

import json
import os
import resource
import subprocess
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from reward_bench.serving import publish
from reward_bench.suite import Report, Setting, Suite, option, say
from reward_bench.workloads import workloads
from reward_contract import MODEL_NAME
from reward_text import pad_rows

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
POISONED = 3  # row
Rewards = NDArray[np.float32]
Providers = list[tuple[str, dict[str, str]]]


@dataclass(frozen=True)
class Options:
    """Which graph on which provider."""

    version: str | None = option(
        None, "a version's folder, with model.onnx in it; random weights unless given"
    )
    name: str | None = option(None, "the execution provider; CPU or CUDA by --device unless given")
    options: tuple[str, ...] = option((), "KEY=VALUE of the provider")
    batches: int = option(1_000, "batches of changing shape", quick=20, kind=int)


def run(setting: Setting, own: Options) -> Report:
    """All parts of the suite.

    Raises:
        RuntimeError: ONNX Runtime could not start the provider.
    """
    name = own.name or (CUDA if setting.device == "cuda" else CPU)
    if name == CUDA and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    provider = (name, dict(text.split("=", 1) for text in own.options))
    providers = [provider] if name == CPU else [provider, (CPU, {})]
    with tempfile.TemporaryDirectory() as folder:
        version = (
            Path(own.version)
            if own.version
            else publish(setting, Path(folder), ()) / MODEL_NAME / "1"
        )
        graph = version / "model.onnx"
        session = open_session(graph, providers)
        if session.get_providers()[0] != name:
            raise RuntimeError(f"ONNX Runtime could not start {name}")
        found = {
            "max_difference_from_cpu": parity(session, open_session(graph, [(CPU, {})])),
            "ms_by_provider_and_operator": placement(graph, providers),
            "rows_per_s": throughput(session, setting.rounds),
            "memory": many_shapes(session, name, own.batches),
        }
        say("\n".join(f"{part}: {figures}" for part, figures in found.items()))
        return {
            "threads": os.cpu_count() or 1,
            "provider": name,
            "manifest": json.loads((version / "manifest.json").read_text()),
            **found,
        }


def open_session(
    graph: Path, providers: Providers, *, profile: str = ""
) -> onnxruntime.InferenceSession:
    """A session on these providers, profiled into files of this prefix if it is given."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling = bool(profile)
    if profile:
        options.profile_file_prefix = profile
    return onnxruntime.InferenceSession(str(graph), options, providers=providers)


def score(session: onnxruntime.InferenceSession, ids: NDArray[np.int32]) -> Rewards:
    """int32 [B, S] to float32 [B]."""
    rewards: Rewards = session.run(None, {"input_ids": ids})[0][:, 0]
    return rewards


def parity(
    session: onnxruntime.InferenceSession, reference: onnxruntime.InferenceSession
) -> dict[str, float]:
    """Largest difference from the CPU provider by workload; a poisoned row answers NaN alone."""
    found = {}
    for name, rows in workloads().items():
        ids = pad_rows(rows)
        found[name] = float(np.abs(score(session, ids) - score(reference, ids)).max())
    ids = pad_rows(workloads()["a"])
    ids[POISONED, 5] = -1
    poisoned = np.isnan(score(session, ids)).nonzero()[0].tolist()
    if poisoned != [POISONED]:
        raise RuntimeError(
            f"an id outside the vocabulary in row {POISONED} gives NaN in {poisoned}"
        )
    return found


def placement(graph: Path, providers: Providers) -> dict[str, dict[str, float]]:
    """For each provider, milliseconds by operator in one run of workload a."""
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(graph, providers, profile=f"{folder}/profile")
        score(session, pad_rows(workloads()["a"]))
        events = json.loads(Path(session.end_profiling()).read_text())
    spent: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
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
        score(
            session, pad_rows([np.concatenate([shared, tail]).astype(np.int32) for tail in tails])
        )
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
            score(session, ids)
            seconds.append(time.perf_counter() - start)
        found[name] = len(rows) / min(seconds)
    return found


SUITE = Suite(
    name="provider",
    about="in process: an execution provider's parity, placement, memory",
    file="provider.json",
    takes=frozenset({"shape", "device", "precision", "seed", "rounds"}),
    options=Options,
    run=run,
    rounds=20,
)
