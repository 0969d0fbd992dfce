"""The graph against a plain export, PyTorch and other engines: same ids, same threads, same run.

Each engine has a process of its own and is called in turn, when the machine is idle:
threads that spin on after a call slow the next engine down, some of vLLM's for a second. A
turn is a call to fill the caches again, and one that is timed. The figure of a
workload is the minimum over the rounds; ratios are taken of those. Every answer of every
call is compared with the plain export's.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import onnx_ir as ir
from transformers import GPT2Tokenizer

from reward_bench import plain
from reward_bench.checkpoints import checkpoint_of
from reward_bench.engines import Engine, EngineEndedError, Rewards, Spec, start
from reward_bench.machine import wait_until_idle
from reward_bench.peak import matmul_peak_gflops
from reward_bench.suite import Report, Setting, say
from reward_bench.workloads import DESCRIPTIONS, n_unique, workloads
from reward_export.checkpoint import load
from reward_export.precision import PRECISIONS
from reward_text import pad_rows

TAKES = frozenset({"shape", "device", "precision", "seed", "rounds", "threads", "vllm", "optimum"})
OURS = ("fp32", "fp16")  # of the column "ours"; int8 has a column of its own
REDUCED = ("int8", "bfloat16", "float16")

Found = dict[str, float]  # of one engine on one workload
ByEngine = dict[str, Found]


@dataclass(frozen=True)
class Rivals:
    """Engines besides ours and the plain export.

    Attributes:
        pythons: interpreters that have them, by `vllm` and `optimum`.
        engines: names of the engines wanted, ours included; nearly all that can run if empty.
    """

    pythons: Mapping[str, str]
    engines: Sequence[str] = ()

    def wants(self, name: str) -> bool:
        """Whether it was asked for; vLLM without its cache only by name."""
        if self.engines:
            return name in ("plain", *self.engines)
        return not name.endswith("-nocache")


def contest(setting: Setting, rivals: Rivals) -> Report:
    """Milliseconds and largest difference from the plain export, by workload and engine.

    Raises:
        ValueError: a precision that the column "ours" does not have.
    """
    if setting.precision not in OURS:
        raise ValueError(
            f"precision {setting.precision} is none of {', '.join(OURS)}; "
            f"on a CPU the engine ours-int8 runs beside them"
        )
    with tempfile.TemporaryDirectory() as folder:
        engines, missing = prepare(Path(folder), setting, rivals)
        try:
            say(f"| workload | {' | '.join(engine.name for engine in engines)} |")
            say("|---" * (len(engines) + 1) + "|")
            peak = matmul_peak_gflops(setting.threads, setting.device, setting.precision)
            results = measure_all(engines, setting, missing)
        finally:
            for engine in engines:
                engine.kill()
    again = matmul_peak_gflops(setting.threads, setting.device, setting.precision)
    rows = workloads()
    return {
        "missing": missing,
        "matmul_peak_gflops": max(peak, again),
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


def prepare(folder: Path, setting: Setting, rivals: Rivals) -> tuple[list[Engine], dict[str, str]]:
    """Checkpoint, graphs, workers of the engines asked for, and why some are missing."""
    source = folder / "checkpoint"
    checkpoint_of(setting, source)
    save_tokenizer(source)
    models = save_graphs(folder, source, setting)
    file = folder / "workloads.npz"
    rows = workloads()
    ids = {f"{name}.ids": pad_rows(own) for name, own in rows.items()}
    lengths = {f"{name}.lengths": np.array([*map(len, own)]) for name, own in rows.items()}
    np.savez(file, **ids, **lengths)
    specs = engine_specs(models, source, setting, rivals)
    return start_all([spec for spec in specs if rivals.wants(spec.name)], file, setting.threads)


def save_graphs(folder: Path, source: Path, setting: Setting) -> dict[str, Path]:
    """The plain export and ours, by the engines' names."""
    checkpoint = load(str(source))
    names = ("plain", "ours", "ours-int8") if setting.device == "cpu" else ("plain", "ours")
    models = {name: folder / name / "model.onnx" for name in names}
    for model in models.values():
        model.parent.mkdir()
    plain.export(checkpoint.model, models["plain"])
    for name, precision in (("ours", setting.precision), ("ours-int8", "int8")):
        if name in models:
            graph = PRECISIONS[precision].build(checkpoint)
            ir.save(graph, models[name], external_data="weights")
    return models


def engine_specs(
    models: Mapping[str, Path], source: Path, setting: Setting, rivals: Rivals
) -> list[Spec]:
    """The engines that can be asked for, plain first."""
    onnx = "onnx" if setting.device == "cpu" else "onnx-cuda"
    specs = [Spec(name, sys.executable, onnx, model) for name, model in models.items()]
    pythons = {"torch-eager": sys.executable, "torch-sdpa": sys.executable}
    if optimum := rivals.pythons.get("optimum"):
        pythons["optimum"] = optimum
    if vllm := rivals.pythons.get("vllm"):
        dtypes = ("float32", "bfloat16") if setting.device == "cpu" else ("float16",)
        pythons |= {f"vllm-{dtype}{way}": vllm for dtype in dtypes for way in ("", "-nocache")}
    specs += [Spec(kind, python, kind, source, setting.device) for kind, python in pythons.items()]
    return specs


def start_all(
    specs: Sequence[Spec], file: Path, threads: int
) -> tuple[list[Engine], dict[str, str]]:
    """Engines that have loaded, and for each rival that cannot, its last words."""
    engines, missing = [], {}
    for spec in specs:
        engine = start(spec, file, threads)
        try:
            engine.wait_until_ready()
        except EngineEndedError as error:
            missing[spec.name] = left_out(error)
            continue
        engines.append(engine)
        say(f"{spec.name} is ready")
    return engines, missing


def left_out(error: EngineEndedError) -> str:
    """A rival that has ended does not end the run. -> its last words."""
    engine = error.engine
    if engine.name in ("plain", "ours"):
        raise error
    engine.kill()
    reason = str(error).splitlines()[-1]
    say(f"{engine.name} is left out: {reason}")
    return reason


def save_tokenizer(folder: Path) -> None:
    """VLLM insists on one, though it is given ids."""
    data = resources.files("reward_text") / "data"
    vocab, merges = str(data / "encoder.json"), str(data / "vocab.bpe")
    tokenizer = GPT2Tokenizer(vocab=vocab, merges=merges)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)


def measure_all(
    engines: Sequence[Engine], setting: Setting, missing: dict[str, str]
) -> dict[str, ByEngine]:
    """What `measure` finds by workload, of the engines that lasted; the others go to `missing`."""
    results: dict[str, ByEngine] = {}
    for name in DESCRIPTIONS:
        while name not in results:
            running = [engine for engine in engines if engine.name not in missing]
            try:
                results[name] = measure(running, name, setting.rounds, setting.precision)
            except EngineEndedError as error:
                missing[error.engine.name] = left_out(error)
        say(table_row(name, results[name]))
    return {
        name: {engine: by for engine, by in found.items() if engine not in missing}
        for name, found in results.items()
    }


def measure(engines: Sequence[Engine], workload: str, rounds: int, precision: str) -> ByEngine:
    """Milliseconds and largest difference from the plain export, by engine."""
    seconds: dict[str, list[float]] = {engine.name: [] for engine in engines}
    worst = dict.fromkeys(seconds, 0.0)
    for _ in range(rounds):
        wanted: Rewards | None = None
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


def table_row(workload: str, by_engine: ByEngine) -> str:
    """Minimum milliseconds, and in brackets how many times faster than the plain export."""
    base = by_engine["plain"]["ms_min"]
    cells = [f"{by['ms_min']:.0f} ({base / by['ms_min']:.2f})" for by in by_engine.values()]
    return f"| {workload} | {' | '.join(cells)} |"
