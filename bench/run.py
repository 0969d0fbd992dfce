"""Named suites in one command; each writes a JSON file that says where and how it was measured.

    python bench/run.py server overload --quick
    python bench/run.py graph server overload peers --shape small --output bench/results

Suites: graph (in process, against other engines), client (its own costs), server (throughput,
latency, sharing, efficiency), overload, analyzer (Triton's perf_analyzer against our own load
generator), peers (environments of rivals are made on request). `--quick` takes tiny random
weights and short measurements: it proves the path, its figures say little.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import analyzer
import overload
import peers
import server
from graph import SHAPES
from machine import describe
from serving import TOLERANCES, Setting

HERE = Path(__file__).parent
IN_OWN_PROCESS = ("graph", "client")
SUITES: dict[str, Callable[[Setting], dict[str, object]]] = {
    "server": server.run,
    "overload": overload.run,
    "analyzer": analyzer.run,
}


def main() -> None:
    """Run the suites asked for, in turn."""
    given = parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers and workers end with it
    setting = setting_of(given)
    given.output.mkdir(parents=True, exist_ok=True)
    for suite in given.suites:
        print(f"== {suite}", file=sys.stderr, flush=True)
        start = time.perf_counter()
        file = given.output / f"{suite}-{setting.shape}.json"
        if suite in SUITES:
            load_before = os.getloadavg()[0]
            found = SUITES[suite](setting)
            took = round(time.perf_counter() - start)
            report = {**header(setting, load_before), "took_s": took, **found}
            file.write_text(json.dumps(report, indent=1) + "\n")
        else:
            subprocess.run(command(suite, given, setting, file), check=True)
        print(f"== {suite}: {time.perf_counter() - start:.0f} s, {file}", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    suites = (*IN_OWN_PROCESS, *SUITES, "peers")
    parser.add_argument("suites", nargs="+", choices=suites, metavar="SUITE")
    parser.add_argument("--quick", action="store_true", help="tiny shape, short measurements")
    parser.add_argument("--shape", choices=SHAPES, help="small unless --quick")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=TOLERANCES, help="fp32 on cpu, fp16 on cuda")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, help="of one measurement")
    parser.add_argument("--rounds", type=int, help="interleaved")
    parser.add_argument("--vllm", metavar="PYTHON", help="interpreter of an environment with vLLM")
    parser.add_argument("--make-peers", action="store_true", help="make rivals' environments")
    parser.add_argument("--output", type=Path, default=HERE.parent / ".bench")
    return parser


def setting_of(given: argparse.Namespace) -> Setting:
    """What the options say, and what follows from others where they do not."""
    return Setting(
        shape=given.shape or ("tiny" if given.quick else "small"),
        device=given.device,
        precision=given.precision or ("fp16" if given.device == "cuda" else "fp32"),
        seed=given.seed,
        seconds=given.seconds or (0.5 if given.quick else 4.0),
        rounds=given.rounds or (2 if given.quick else 3),
    )


def header(setting: Setting, load_before: float) -> dict[str, object]:
    """Machine, versions, shape, precision, threads, seed, and what else ran."""
    return {
        **describe(setting.threads),
        "shape": setting.shape,
        "device": setting.device,
        "precision": setting.precision,
        "seed": setting.seed,
        "seconds": setting.seconds,
        "rounds": setting.rounds,
        "load_average_before": load_before,
    }


def command(suite: str, given: argparse.Namespace, setting: Setting, file: Path) -> list[str]:
    """A suite that is a program of its own."""
    if suite == "client":
        sizes = ["--calls=200", "--memory-calls=4000"] if given.quick else []
        return [sys.executable, str(HERE / "client.py"), f"--output={file}", *sizes]
    arguments = [
        f"--shape={setting.shape}",
        f"--rounds={setting.rounds}",
        f"--device={setting.device}",
        f"--precision={setting.precision}",
        f"--seed={setting.seed}",
        f"--output={file}",
    ]
    if suite == "peers":
        arguments += peers.arguments(given.vllm, make=given.make_peers)
    elif given.vllm:
        arguments.append(f"--vllm={given.vllm}")
    return [sys.executable, str(HERE / "graph.py"), *arguments]


if __name__ == "__main__":
    main()
