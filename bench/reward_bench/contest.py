"""The graph against a plain export, PyTorch and other engines: same ids, same threads, same run.

Each engine has a process of its own and is called in turn, once the machine is idle:
threads that keep spinning after a call, some of vLLM's for a second, slow the next engine
down. A turn is one call that refills the caches and one that is timed. The figure of a
workload is the minimum over the rounds; ratios are taken of these minima. Every timed
answer is compared with the plain export's.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import numpy as np
import onnx_ir as ir
from transformers import GPT2Tokenizer

from reward_bench import plain
from reward_bench.checkpoints import checkpoint_of
from reward_bench.engines import (
    Answer,
    Engine,
    EngineEndedError,
    Rewards,
    Spec,
    start,
    write_requests,
)
from reward_bench.machine import has_bfloat16, wait_until_idle
from reward_bench.peak import OURS as OUR_PEAK
from reward_bench.peak import cpu_peaks_gflops, matmul_peak_gflops
from reward_bench.rivals import Rivals
from reward_bench.suite import Report, Setting, say
from reward_bench.workloads import DESCRIPTIONS, n_unique, requests
from reward_export.checkpoint import load
from reward_export.precision import PRECISIONS
from reward_text import pad_rows

TAKES = frozenset({"shape", "device", "precision", "seed", "rounds", "threads", "vllm", "optimum"})
OURS = ("fp32", "fp16")  # precisions of the column "ours"; int8 has a column of its own
NO_BFLOAT16 = "the processor has no instructions for bfloat16, and would emulate them"
REDUCED = ("int8", "bfloat16", "float16")
# workloads of several requests: with one, a cache emptied before it has nothing to reuse
SERIES, WARM = ("turns",), "-warm"

Found = dict[str, float]  # of one engine on one workload
ByEngine = dict[str, Found]


def contest(setting: Setting, rivals: Rivals) -> Report:
    """Milliseconds and largest difference from the plain export, by workload and engine.

    Raises:
        ValueError: a precision that the column "ours" does not have.
        RivalEnvironmentError: a rival would not be at its best in the interpreter given for it.
    """
    if setting.precision not in OURS:
        raise ValueError(
            f"precision {setting.precision} is not one of {', '.join(OURS)}; "
            f"on a CPU, int8 runs as the engine ours-int8"
        )
    rival_versions = rivals.versions(setting.device)
    with tempfile.TemporaryDirectory() as folder:
        engines, missing = prepare(Path(folder), setting, rivals)
        try:
            before = peaks_of(setting)
            results = measure_all(engines, setting, missing)
        finally:
            for engine in engines:
                engine.kill()
    peaks = {name: max(peak, before[name]) for name, peak in peaks_of(setting).items()}
    asked = requests()
    return {
        "missing": missing,
        "rival_versions": rival_versions,
        "peaks_gflops": peaks,
        "workloads": {
            name: {
                "description": DESCRIPTIONS[name],
                "tokens": sum(len(row) for rows in asked[name] for row in rows),
                "unique_tokens": sum(map(n_unique, asked[name])),
                "engines": by_engine,
            }
            for name, by_engine in results.items()
        },
    }


def peaks_of(setting: Setting) -> dict[str, float]:
    """GFLOP/s of the machine's matrix products, by library and type."""
    if setting.device == "cpu":
        return cpu_peaks_gflops(setting.threads)
    return {OUR_PEAK: matmul_peak_gflops(setting.threads, setting.device, setting.precision)}


def prepare(folder: Path, setting: Setting, rivals: Rivals) -> tuple[list[Engine], dict[str, str]]:
    """Write checkpoint and graphs, and start the engines asked for. -> as `start_all`."""
    source = folder / "checkpoint"
    checkpoint_of(setting, source)
    save_tokenizer(source)
    models = save_graphs(folder, source, setting)
    file = folder / "workloads.npz"
    write_requests(
        file,
        {
            name: [(pad_rows(rows), np.array([*map(len, rows)])) for rows in batches]
            for name, batches in requests().items()
        },
    )
    specs = engine_specs(models, source, setting, rivals)
    wanted = [spec for spec in specs if rivals.wants(spec.name)]
    emulated = [spec.name for spec in wanted if "bfloat16" in spec.name and not has_bfloat16()]
    started, missing = start_all(
        [spec for spec in wanted if spec.name not in emulated], file, setting.threads
    )
    return started, {**missing, **dict.fromkeys(emulated, NO_BFLOAT16)}


def save_graphs(folder: Path, source: Path, setting: Setting) -> dict[str, Path]:
    """Write the plain export and our graphs. -> files by the engines' names."""
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
        caches = ("", "-warm", "-nocache")
        pythons |= {f"vllm-{dtype}{cache}": vllm for dtype in dtypes for cache in caches}
    specs += [Spec(kind, python, kind, source, setting.device) for kind, python in pythons.items()]
    return specs


def start_all(
    specs: Sequence[Spec], file: Path, threads: int
) -> tuple[list[Engine], dict[str, str]]:
    """Start engines. -> those that have loaded; by name, the last line of rivals that could not."""
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
    """Leave out a rival that has ended, but raise for plain and ours. -> the rival's last line."""
    engine = error.engine
    if engine.name in ("plain", "ours"):
        raise error
    engine.kill()
    reason = str(error).splitlines()[-1]
    say(f"{engine.name} is left out: {reason}")
    return reason


def save_tokenizer(folder: Path) -> None:
    """Save a tokenizer: vLLM insists on one, though it is given ids."""
    data = resources.files("reward_text") / "data"
    vocab, merges = str(data / "encoder.json"), str(data / "vocab.bpe")
    tokenizer = GPT2Tokenizer(vocab=vocab, merges=merges)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)


def measure_all(
    engines: Sequence[Engine], setting: Setting, missing: dict[str, str]
) -> dict[str, ByEngine]:
    """Figures of `measure` by workload, for engines that lasted; others are added to `missing`."""
    results: dict[str, ByEngine] = {}
    for name in DESCRIPTIONS:
        while name not in results:
            running = [
                engine
                for engine in engines
                if engine.name not in missing and (name in SERIES or not engine.name.endswith(WARM))
            ]
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
    """Milliseconds, processors kept busy, and largest difference from the plain export."""
    answers: dict[str, list[Answer]] = {engine.name: [] for engine in engines}
    worst = dict.fromkeys(answers, 0.0)
    for _ in range(rounds):
        wanted: Rewards | None = None
        for engine in engines:
            wait_until_idle()
            engine.ask(workload)
            answer = engine.ask(workload)
            wanted = answer.rewards if wanted is None else wanted
            difference = float(np.abs(answer.rewards - wanted).max())
            if not difference <= allowed_difference(engine.name, precision):  # NaN fails as well
                raise RuntimeError(f"{engine.name} answers {workload} wrongly: off by {difference}")
            worst[engine.name] = max(worst[engine.name], difference)
            answers[engine.name].append(answer)
    return {name: {**figures(own), "max_difference": worst[name]} for name, own in answers.items()}


def figures(answers: Sequence[Answer]) -> Found:
    """Milliseconds over the rounds, and processors kept busy: processor seconds per second."""
    seconds = [answer.seconds for answer in answers]
    return {
        "ms_min": 1e3 * min(seconds),
        "ms_median": 1e3 * float(np.median(seconds)),
        "ms_max": 1e3 * max(seconds),
        "processors": sum(answer.processor_seconds for answer in answers) / sum(seconds),
    }


def allowed_difference(engine: str, precision: str) -> float:
    """How far an engine's logits may be from the plain export's, whose std is near 1."""
    reduced = precision != "fp32" or any(part in engine for part in REDUCED)
    return 0.3 if reduced else 1e-4


def table_row(workload: str, by_engine: ByEngine) -> str:
    """Minimum milliseconds, speed relative to the plain export, and processors kept busy."""
    base = by_engine["plain"]["ms_min"]
    cells = [
        f"{engine} {by['ms_min']:.0f} ({base / by['ms_min']:.2f}, {by['processors']:.2f} busy)"
        for engine, by in by_engine.items()
    ]
    return f"| {workload} | {' | '.join(cells)} |"
