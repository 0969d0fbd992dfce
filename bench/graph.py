"""The graph against a plain export, PyTorch and vLLM: same ids, same threads, same run.

    python bench/graph.py --shape small --rounds 6 --output bench/results/graph-small.json
    python bench/graph.py --shape small --vllm /path/to/python-with-vllm

Each engine has a process of its own and is called in turn, when the machine is idle:
threads that spin on after a call slow the next engine down, some of vLLM's for a second. A
turn is a call to fill the caches again, and one that is timed. The figure of a
workload is the minimum over the rounds; ratios are taken of those. Every answer of every
call is compared with the plain export's.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import onnx_ir as ir
import plain
from machine import describe, wait_until_idle
from peak import matmul_peak_gflops
from transformers import GPT2Tokenizer
from workloads import DESCRIPTIONS, n_unique, workloads

from reward_export.checkpoint import load
from reward_export.graph import build
from reward_export.parity import calibration_groups
from reward_export.random_checkpoint import random_checkpoint
from reward_export.smooth import smoothed
from reward_text import pad_rows

SHAPES = {"tiny": (2, 2, 64), "small": (12, 12, 768), "medium": (24, 16, 1024)}
REDUCED = ("int8", "bfloat16", "float16")
WORKER = Path(__file__).parent / "worker.py"


@dataclass
class Engine:
    """A running worker."""

    name: str
    process: "subprocess.Popen[str]"
    log: Path

    def ask(self, workload: str) -> tuple[float, np.ndarray]:
        """Seconds and rewards of one run."""
        with contextlib.suppress(BrokenPipeError):  # it has ended, as reading will tell
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
            text = f"{self.name} ended, exit code {self.process.wait()}:\n{last}"
            raise EngineEndedError(text, self)
        return json.loads(line)

    def kill(self) -> None:
        """With the processes that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class EngineEndedError(RuntimeError):
    """A worker is gone; the message has its last words."""

    def __init__(self, message: str, engine: Engine) -> None:
        super().__init__(message)
        self.engine = engine


@dataclass(frozen=True)
class Spec:
    """An engine to start: its column's name, interpreter, kind in `worker.py`, model and device."""

    name: str
    python: str
    kind: str
    model: Path
    device: str = "cpu"


def start(spec: Spec, file: Path, threads: int) -> Engine:
    """Start a worker; what it prints besides answers goes to its log."""
    log = file.with_name(f"{spec.name}.log")
    environment = {**os.environ, "BENCH_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    environment["BENCH_DEVICE"] = spec.device
    if spec.kind.startswith("vllm") and spec.device == "cpu":
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
        # GiB; all engines are in memory at once, and 1 is enough for GPT-2 small
        "VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "2"),
        "VLLM_LOGGING_LEVEL": "WARNING",
        "HF_HUB_OFFLINE": "1",
    }


def prepare(folder: Path, given: argparse.Namespace) -> tuple[list[Engine], dict[str, str]]:
    """Checkpoint, graphs, workers of the engines asked for, and why some are missing."""
    n_layer, n_head, n_embd = SHAPES[given.shape]
    source = folder / "checkpoint"
    random_checkpoint(source, n_layer=n_layer, n_head=n_head, n_embd=n_embd, seed=given.seed)
    save_tokenizer(source)
    checkpoint = load(str(source))
    names = ("plain", "ours", "ours-int8") if given.device == "cpu" else ("plain", "ours")
    models = {name: folder / name / "model.onnx" for name in names}
    for model in models.values():
        model.parent.mkdir()
    plain.export(checkpoint.model, models["plain"])
    weights = checkpoint.weights()
    ours = build(checkpoint.architecture, weights, given.precision)
    ir.save(ours, models["ours"], external_data="weights")
    if "ours-int8" in models:
        largest = checkpoint.largest_inputs(calibration_groups())
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
    specs = engine_specs(models, source, given)
    return start_all([spec for spec in specs if is_wanted(spec, given.engines)], file, given)


def engine_specs(models: dict[str, Path], source: Path, given: argparse.Namespace) -> list[Spec]:
    """The engines that can be asked for, plain first."""
    onnx = "onnx" if given.device == "cpu" else "onnx-cuda"
    specs = [Spec(name, sys.executable, onnx, model) for name, model in models.items()]
    pythons = {"torch-eager": sys.executable, "torch-sdpa": sys.executable}
    if given.optimum:
        pythons["optimum"] = given.optimum
    if given.vllm:
        dtypes = ("float32", "bfloat16") if given.device == "cpu" else ("float16",)
        pythons |= {
            f"vllm-{dtype}{way}": given.vllm for dtype in dtypes for way in ("", "-nocache")
        }
    specs += [Spec(kind, python, kind, source, given.device) for kind, python in pythons.items()]
    return specs


def is_wanted(spec: Spec, engines: str | None) -> bool:
    """Whether it was asked for; vLLM without its cache only by name."""
    if engines:
        return spec.name in ("plain", *engines.split(","))
    return not spec.name.endswith("-nocache")


def start_all(
    specs: list[Spec], file: Path, given: argparse.Namespace
) -> tuple[list[Engine], dict[str, str]]:
    """Engines that have loaded, and for each rival that cannot, its last words."""
    engines, missing = [], {}
    for spec in specs:
        engine = start(spec, file, given.threads)
        try:
            engine.wait_until_ready()
        except EngineEndedError as error:
            missing[spec.name] = left_out(error)
            continue
        engines.append(engine)
        print(f"{spec.name} is ready", file=sys.stderr, flush=True)
    return engines, missing


def left_out(error: EngineEndedError) -> str:
    """A rival that has ended does not end the run. -> its last words."""
    engine = error.engine
    if engine.name in ("plain", "ours"):
        raise error
    engine.kill()
    reason = str(error).splitlines()[-1]
    print(f"{engine.name} is left out: {reason}", file=sys.stderr, flush=True)
    return reason


def save_tokenizer(folder: Path) -> None:
    """VLLM insists on one, though it is given ids."""
    data = resources.files("reward_text") / "data"
    vocab, merges = str(data / "encoder.json"), str(data / "vocab.bpe")
    tokenizer = GPT2Tokenizer(vocab=vocab, merges=merges)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)


def measure_all(
    engines: list[Engine], given: argparse.Namespace, missing: dict[str, str]
) -> dict[str, dict[str, dict[str, float]]]:
    """What `measure` finds by workload, of the engines that lasted; the others go to `missing`."""
    results = {}
    for name in DESCRIPTIONS:
        while name not in results:
            running = [engine for engine in engines if engine.name not in missing]
            try:
                results[name] = measure(running, name, given.rounds, given.precision)
            except EngineEndedError as error:
                missing[error.engine.name] = left_out(error)
        print(table_row(name, results[name]), flush=True)
    return {
        name: {engine: by for engine, by in found.items() if engine not in missing}
        for name, found in results.items()
    }


def measure(
    engines: list[Engine], workload: str, rounds: int, precision: str
) -> dict[str, dict[str, float]]:
    """Milliseconds and largest difference from the plain export, by engine."""
    seconds: dict[str, list[float]] = {engine.name: [] for engine in engines}
    worst = dict.fromkeys(seconds, 0.0)
    for _ in range(rounds):
        wanted: np.ndarray | None = None
        for engine in engines:
            wait_until_idle()
            engine.ask(workload)
            taken, rewards = engine.ask(workload)
            wanted = rewards if wanted is None else wanted
            difference = float(np.abs(rewards - wanted).max())
            if not difference <= allowed_difference(engine.name, precision):  # NaN fails as well
                raise RuntimeError(f"{engine.name} answers wrongly on {workload}: {difference}")
            worst[engine.name] = max(worst[engine.name], difference)
            seconds[engine.name].append(taken)
    return {
        name: {
            "ms_min": 1e3 * min(times),
            "ms_median": 1e3 * float(np.median(times)),
            "ms_max": 1e3 * max(times),
            "max_difference": worst[name],
        }
        for name, times in seconds.items()
    }


def allowed_difference(engine: str, precision: str) -> float:
    """How far an engine's logits may be from the plain export's; random ones have a std near 1."""
    reduced = precision != "fp32" or any(part in engine for part in REDUCED)
    return 0.3 if reduced else 1e-4


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
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("fp32", "fp16"), default="fp32", help="of ours")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    parser.add_argument("--optimum", metavar="PYTHON", help="the same with optimum-onnx")
    parser.add_argument("--vllm", metavar="PYTHON", help="interpreter of an environment with vLLM")
    parser.add_argument(
        "--engines", help="names, comma between; all if left out, plain always first"
    )
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        engines, missing = prepare(Path(folder), given)
        print(f"| workload | {' | '.join(engine.name for engine in engines)} |")
        print("|---" * (len(engines) + 1) + "|")
        peaks = [matmul_peak_gflops(given.threads, given.device, given.precision)]
        try:
            results = measure_all(engines, given, missing)
        finally:
            for engine in engines:
                engine.kill()
    rows = workloads()
    report = {
        **describe(given.threads),
        "shape": given.shape,
        "device": given.device,
        "precision": given.precision,
        "seed": given.seed,
        "rounds": given.rounds,
        "missing": missing,
        "matmul_peak_gflops": max(
            *peaks, matmul_peak_gflops(given.threads, given.device, given.precision)
        ),
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
