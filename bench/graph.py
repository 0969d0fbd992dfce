"""The graph against a plain export, PyTorch and vLLM: same ids, same threads, same run.

    python bench/graph.py --shape small --rounds 6 --output bench/results/graph-small.json
    python bench/graph.py --shape small --vllm /path/to/python-with-vllm

Each engine has a process of its own and is called in turn with short pauses: several
sessions that spin in one process slow each other down. The figure of a workload is the
minimum over the rounds; ratios are taken of those. Every answer of every call is compared
with the plain export's.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import onnx_ir as ir
import plain
from machine import describe
from peak import matmul_peak_gflops
from transformers import GPT2Tokenizer
from workloads import DESCRIPTIONS, n_unique, workloads

from reward_client.tokens import pad_rows
from reward_export.checkpoint import load
from reward_export.graph import build
from reward_export.parity import groups_of_candidates
from reward_export.random_checkpoint import random_checkpoint
from reward_export.smooth import smoothed

SHAPES = {"tiny": (2, 2, 64), "small": (12, 12, 768), "medium": (24, 16, 1024)}
PAUSE_S = 0.3
WORKER = Path(__file__).parent / "worker.py"


@dataclass
class Engine:
    """A running worker."""

    name: str
    process: "subprocess.Popen[str]"
    log: Path

    def ask(self, workload: str) -> tuple[float, np.ndarray]:
        """Seconds and rewards of one run."""
        print(workload, file=self.process.stdin, flush=True)
        answer = self._read()
        return answer["seconds"], np.array(answer["rewards"])

    def wait_until_ready(self) -> None:
        """Return when the engine has loaded."""
        self._read()

    def _read(self) -> dict:
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            last = "\n".join(self.log.read_text().splitlines()[-15:])
            raise RuntimeError(f"{self.name} ended, exit code {self.process.wait()}:\n{last}")
        return json.loads(line)


@dataclass(frozen=True)
class Spec:
    """An engine to start: its column's name, interpreter, kind in `worker.py`, and model."""

    name: str
    python: str
    kind: str
    model: Path


def start(spec: Spec, file: Path, threads: int) -> Engine:
    """Start a worker; what it prints besides answers goes to its log."""
    log = file.with_name(f"{spec.name}.log")
    environment = {**os.environ, "BENCH_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    if spec.kind.startswith("vllm"):
        environment |= vllm_environment(Path(spec.python))
    process = subprocess.Popen(
        [spec.python, str(WORKER), spec.kind, str(spec.model), str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log.open("w"),
        text=True,
        env=environment,
        start_new_session=True,  # vLLM has processes of its own, which would go on spinning
    )
    return Engine(spec.name, process, log)


def vllm_environment(python: Path) -> dict[str, str]:
    """What vLLM's own documentation asks for on CPUs, where it is installed."""
    libraries = [
        *Path("/usr/lib").glob("*/libtcmalloc_minimal.so.4"),
        *python.parent.parent.glob("lib/libiomp5.so"),
    ]
    return {
        "LD_PRELOAD": ":".join(map(str, libraries)),
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "HF_HUB_OFFLINE": "1",
    }


def prepare(folder: Path, given: argparse.Namespace) -> list[Engine]:
    """Checkpoint, graphs and workers of the engines asked for."""
    shape, vllm, threads = given.shape, given.vllm, given.threads
    n_layer, n_head, n_embd = SHAPES[shape]
    source = folder / "checkpoint"
    random_checkpoint(source, n_layer=n_layer, n_head=n_head, n_embd=n_embd)
    save_tokenizer(source)
    checkpoint = load(str(source))
    models = {name: folder / name / "model.onnx" for name in ("plain", "ours", "ours-int8")}
    for model in models.values():
        model.parent.mkdir()
    plain.export(checkpoint.model, models["plain"])
    weights = checkpoint.weights()
    ir.save(build(checkpoint.architecture, weights), models["ours"], external_data="weights")
    largest = checkpoint.largest_inputs(groups_of_candidates())
    int8 = build(checkpoint.architecture, smoothed(weights, largest, n_layer), "int8")
    ir.save(int8, models["ours-int8"], external_data="weights")
    file = folder / "workloads.npz"
    arrays = {}
    for name, rows in workloads().items():
        arrays[f"{name}.ids"], arrays[f"{name}.lengths"] = (
            pad_rows(rows),
            np.array([*map(len, rows)]),
        )
    np.savez(file, **arrays)
    specs = [Spec(name, sys.executable, "onnx", model) for name, model in models.items()]
    pythons = {"torch-eager": sys.executable, "torch-sdpa": sys.executable}
    if vllm:
        pythons |= {"vllm-float32": vllm, "vllm-bfloat16": vllm}
    specs += [Spec(kind, python, kind, source) for kind, python in pythons.items()]
    engines = []
    for spec in specs:
        if given.engines and spec.name not in ("plain", *given.engines.split(",")):
            continue
        engines.append(start(spec, file, threads))
        engines[-1].wait_until_ready()
        print(f"{spec.name} is ready", file=sys.stderr, flush=True)
    return engines


def save_tokenizer(folder: Path) -> None:
    """VLLM insists on one, though it is given ids."""
    data = resources.files("reward_client") / "data"
    vocab, merges = str(data / "encoder.json"), str(data / "vocab.bpe")
    tokenizer = GPT2Tokenizer(vocab=vocab, merges=merges)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)


def measure(engines: list[Engine], workload: str, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds and largest difference from the plain export, by engine."""
    seconds: dict[str, list[float]] = {engine.name: [] for engine in engines}
    worst = dict.fromkeys(seconds, 0.0)
    for number in range(rounds + 1):
        wanted: np.ndarray | None = None
        for engine in engines:
            time.sleep(PAUSE_S)
            taken, rewards = engine.ask(workload)
            wanted = rewards if wanted is None else wanted
            difference = float(np.abs(rewards - wanted).max())
            if not difference <= allowed_difference(engine.name):  # NaN fails as well
                raise RuntimeError(f"{engine.name} answers wrongly on {workload}: {difference}")
            worst[engine.name] = max(worst[engine.name], difference)
            if number:  # the first is for warming up
                seconds[engine.name].append(taken)
    return {
        name: {
            "ms_min": 1e3 * min(times),
            "ms_median": 1e3 * float(np.median(times)),
            "max_difference": worst[name],
        }
        for name, times in seconds.items()
    }


def allowed_difference(engine: str) -> float:
    """How far an engine's logits may be from the plain export's; random ones have a std near 1."""
    return 0.3 if engine.endswith(("int8", "bfloat16")) else 1e-4


def table_row(workload: str, by_engine: dict[str, dict[str, float]]) -> str:
    """Minimum milliseconds, and in brackets how many times faster than the plain export."""
    base = by_engine["plain"]["ms_min"]
    cells = [f"{by['ms_min']:.0f} ({base / by['ms_min']:.2f})" for by in by_engine.values()]
    return f"| {workload} | {' | '.join(cells)} |"


def main() -> None:
    """Run, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--vllm", metavar="PYTHON", help="interpreter of an environment with vLLM")
    parser.add_argument(
        "--engines", help="names, comma between; all if left out, plain always first"
    )
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        engines = prepare(Path(folder), given)
        print(f"| workload | {' | '.join(engine.name for engine in engines)} |")
        print("|---" * (len(engines) + 1) + "|")
        results = {}
        peaks = [matmul_peak_gflops(given.threads)]
        try:
            for name in DESCRIPTIONS:
                results[name] = measure(engines, name, given.rounds)
                print(table_row(name, results[name]), flush=True)
        finally:
            for engine in engines:
                os.killpg(engine.process.pid, signal.SIGKILL)
    rows = workloads()
    report = {
        **describe(given.threads),
        "shape": given.shape,
        "rounds": given.rounds,
        "matmul_peak_gflops": max(*peaks, matmul_peak_gflops(given.threads)),
        "workloads": {
            name: {
                "description": DESCRIPTIONS[name],
                "tokens": sum(map(len, rows[name])),
                "unique_tokens": n_unique(rows[name]),
                "engines": by_engine,
            }
            for name, by_engine in results.items()
        },
    }
    if given.output:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
