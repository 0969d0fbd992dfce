"""Writes docs/benchmarks.md and its plots from the result files, so that they cannot drift apart.

python -m reward_bench.report            write them
python -m reward_bench.report --check    fail if they are not what would be written, or if a result
                                         is older than the code that it measures
python -m reward_bench.report --written  fail only if they are not what would be written
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes

from reward_bench.fingerprint import fingerprint
from reward_bench.report import (
    analyzer,
    client,
    graph,
    headline,
    linear,
    overload,
    plots,
    provider,
    server,
    service,
    truncation,
)
from reward_bench.report.cells import Report
from reward_bench.runner import known_suites, measured_by
from reward_bench.suite import ROOT

RESULTS, PAGE = ROOT / "bench" / "results", ROOT / "docs" / "benchmarks.md"
PLOTS = PAGE.parent / "plots"

Section = Callable[[Report], str]
Plot = Callable[[Axes, Report], None]
GPU = "provider-medium.json"
SERVICE = "service-small.json"
OPTIONAL = frozenset({GPU, SERVICE})  # exist only once they have been measured
# result file -> its section, and its plots by name, in the order of the page
SECTIONS: dict[str, tuple[Section, dict[str, Plot]]] = {
    "graph-small.json": (
        partial(graph.section, plot="graph-small"),
        {"graph-small": plots.graph},
    ),
    "graph-small-avx512.json": (graph.section, {}),
    "graph-medium.json": (
        partial(graph.section, plot="graph-medium"),
        {"graph-medium": plots.graph},
    ),
    "server-small.json": (
        server.section,
        {
            "concurrency": plots.concurrency,
            "latency": plots.latency,
            "sharing": plots.sharing,
            "batch": plots.batch,
        },
    ),
    SERVICE: (service.section, {}),
    GPU: (provider.section, {}),
    "overload-small.json": (overload.section, {"overload": plots.overload}),
    "analyzer-small.json": (analyzer.section, {}),
    "linear.json": (linear.section, {}),
    "client.json": (client.section, {}),
    "truncation.json": (truncation.section, {}),
}

INTRODUCTION = """\
# Benchmarks

Written by `python -m reward_bench.report` from `bench/results/`; do not edit.

The tables of engines give milliseconds, the minimum over the rounds, and in brackets the speed
relative to the plain padded ONNX export in the same run. Each engine has a process of its own.
Engines are called in turn, once the machine is idle, and twice each; the second call is timed. All
get the same token ids and the same number of threads, and every timed answer is compared with the
plain export's. Weights are random: the time does not depend on them. Ratios carry over to other
machines better than milliseconds do, but neither carries far.

- *plain*: `torch.onnx.export` of the checkpoint, rows padded to the batch's longest
- *ours*, *ours-int8*: `gpt2-reward export`, `--precision int8`
- *torch-eager*, *torch-sdpa*: the model card's snippet, with eager and with SDPA attention
- *optimum*: optimum-onnx's export and its `ORTModelForSequenceClassification`
- *vllm*: vLLM for CPUs as a pooling runner in process, prefix cache on and emptied before every
  request, blocks of 32, raw logits, token ids as input, tcmalloc and Intel's OpenMP preloaded,
  bound to every core; *-warm* keeps its cache between the turns of a chat, *-nocache* has none

To rerun: `make bench` is a quick pass over a tiny model. A full run is, for instance,
`python -m reward_bench graph server overload --shape small`; `--help` lists the suites and their
options. `--vllm` takes the interpreter of an environment that has vLLM; `peers --peers-make` makes
such an environment, and one with optimum-onnx. Two rivals are missing because they cannot do the
job: CTranslate2 cannot serve the classifier, and Infinity refuses classifiers with one label.

{gpu}

For choosing hardware: a call costs as much as its *tokens that differ*, among which a prefix that
rows share counts once, so count those in your chats and not the rows. Candidates that share a
context are cheap; long chats cut on the left are not, unless the truncation policy keeps their
context shared. The work is matrix products. The column *peak* gives their rate as a share of the
machine's own rate of matrix products: compare processors by the latter.
"""

HOW = """\
On a host with an NVIDIA GPU, `python -m reward_bench provider --device cuda --shape medium` tries
and measures the graphs for GPUs within eight minutes: batches of every shape, rewards against
float32 on the CPU, the kernels that decide the time, throughput, memory, and Triton. Its table
shows measured figures next to predicted ones. It needs `onnxruntime-gpu` instead of `onnxruntime`,
with CUDA and cuDNN:

```sh
make install && .venv/bin/pip uninstall --yes onnxruntime
.venv/bin/pip install 'onnxruntime-gpu[cuda,cudnn]==1.27.0'
.venv/bin/python -m reward_bench provider --device cuda --shape medium --output bench/results
```
"""
MEASURED = HOW.rstrip()
NOT_MEASURED = (
    f"No GPU has been measured so far: every figure on this page is from a CPU.\n{HOW}".rstrip()
)


def written() -> dict[Path, str]:
    """The page and its plots, by file."""
    gpu = MEASURED if (RESULTS / GPU).exists() else NOT_MEASURED
    sections, drawn = [INTRODUCTION.format(gpu=gpu)], dict[Path, str]()
    for name, (section, by_name) in SECTIONS.items():
        if name in OPTIONAL and not (RESULTS / name).exists():
            continue
        report = json.loads((RESULTS / name).read_text())
        sections.append(section(report))
        drawn |= {PLOTS / f"{n}.svg": plots.draw(plot, report) for n, plot in by_name.items()}
    first_screen = json.loads((RESULTS / "graph-small.json").read_text())
    drawn[PLOTS / "best-of-8.svg"] = headline.svg(first_screen)  # shown by the README
    return {PAGE: "\n".join(sections).rstrip() + "\n", **drawn}


def old() -> list[str]:
    """Names of the result files that were measured with other code than the checkout's."""
    codes = {
        suite.file.format(shape="*"): f'"code": "{fingerprint(measured_by(suite))}"'
        for suite in known_suites()
    }
    return sorted(
        file.name
        for pattern, code in codes.items()
        for file in RESULTS.glob(pattern)
        if code not in file.read_text()
    )


def main() -> None:
    """Write the page and its plots, or check them."""
    wanted, said = written(), list[str]()
    if not {"--check", "--written"} & {*sys.argv}:
        PLOTS.mkdir(exist_ok=True)
        for file, text in wanted.items():
            file.write_text(text)
        return
    differ = [str(f) for f, text in wanted.items() if not f.exists() or f.read_text() != text]
    if differ:
        said.append(
            f"not what the results say: {', '.join(differ)}; run python -m reward_bench.report"
        )
    if "--check" in sys.argv and (names := old()):
        said.append(
            f"older than the code that they measure: {', '.join(names)}; run their suites again"
        )
    sys.exit("\n".join(said) or None)


if __name__ == "__main__":
    main()
