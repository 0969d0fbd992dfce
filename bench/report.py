"""Writes docs/benchmarks.md from the result files, so that it cannot drift from them.

python bench/report.py            write it
python bench/report.py --check    fail if it is not what would be written
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import plots
import report_server as server

ROOT = Path(__file__).parent.parent
RESULTS, PAGE = ROOT / "bench" / "results", ROOT / "docs" / "benchmarks.md"
PLOTS = PAGE.parent / "plots"
Section = Callable[[dict], str]
# result file -> its section, and its plots by name; left out where there is no such file
SERVER: dict[str, tuple[Section, tuple[str, ...]]] = {
    "server-small.json": (
        server.server_section,
        ("concurrency", "latency", "sharing", "batch"),
    ),
    "overload-small.json": (server.overload_section, ("overload",)),
    "analyzer-small.json": (server.analyzer_section, ()),
}
H = {"small": 768, "medium": 1024}
LAYERS = {"small": 12, "medium": 24}

INTRODUCTION = """\
# Benchmarks

Written by `bench/report.py` from `bench/results/`; do not edit.

Milliseconds, the minimum over the rounds, and in brackets how many times faster than the plain
padded ONNX export in the same run. Every engine has a process of its own and is called in turn,
twice, once the machine is idle; the second call counts. All get the same token ids and as many
threads; every answer of every call is compared with the plain export's. Random weights: the time
does not depend on them. Ratios travel better between machines than milliseconds do, and neither
travels far.

- *plain*: `torch.onnx.export` of the checkpoint, rows padded to the batch's longest
- *ours*, *ours-int8*: `gpt2-reward export`, `--precision int8`
- *torch-eager*, *torch-sdpa*: the model card's snippet
- *optimum*: optimum-onnx's export and its `ORTModelForSequenceClassification`
- *vllm*: vLLM for CPUs as a pooling runner, prefix cache on and cold, blocks of 32, raw logits,
  token ids as input, tcmalloc and Intel's OpenMP preloaded; *-nocache* without prefix cache

To rerun: `make bench` is a quick pass on a tiny model; `python bench/run.py --help` names the
suites and their options, such as `python bench/run.py graph server overload --shape small`.
`--vllm` takes the interpreter of an environment that has vLLM; `peers --make-peers` makes one, and
one with optimum-onnx. Two rivals cannot do the job: CTranslate2 cannot serve the classifier, and
Infinity refuses classifiers of one label. `--device cuda` is for GPUs; none was measured so far.

What this means for choosing hardware: a call costs the tokens that differ, so count those of your
chats, not their rows. Candidates behind a shared context are cheap, and long chats cut on the left
are not, unless the truncation policy shares them. The work is matrix products, at the share of the
machine's own that stands in the column *peak*: compare processors by those.
"""

WAYS = """\
## One linear layer in 8 bits

`python bench/linear.py`: {rows} rows through GPT-2 small's 768 x 3072 layer, {threads} threads.

| way | times float32 | billion operations/s | largest error, in standard deviations |
|---|---|---|---|
{lines}
"""


CLIENT = """\
## The client

`python bench/client.py` on {cpu}, against a server in another process that answers at once.

Milliseconds of a best-of-8 call over short real conversations, {calls} calls. *Own* is what the
client does outside of its RPCs: tokenising, checking, ranking.

| client | own, median | own, 99 % | whole, median |
|---|---|---|---|
{own}

Milliseconds to tokenise a best-of-8, by the size of its context:

| context | ms |
|---|---|
{tokenising}

Resident megabytes at the start, in the middle and at the end of {memory_calls} calls by one client:

| client | start | middle | end |
|---|---|---|---|
{memory}

Calls a second of 64 tasks over one client, by its number of connections: {rates}.
"""

TRUNCATION = """\
## Truncation policies

`python bench/truncation.py`: {groups} real conversations beyond 256 tokens, best-of-{candidates},
float32 in process on {threads} threads; {checkpoint}.

| policy | ms a group | tokens that differ |
|---|---|---|
{lines}

`shared_context` is {speed_up:.1f} times as fast (a tenth of the groups below {low:.1f}, half below
{middle:.1f}, a tenth above {high:.1f}). It puts another candidate first in {other_best} of {groups}
groups; rewards differ by {mean_difference:.2f} on average.
"""


def graph_section(report: dict) -> str:
    """One result file of `graph.py` as a section."""
    engines = list(next(iter(report["workloads"].values()))["engines"])
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    setting = (
        f"{versions}; {report['rounds']} rounds; float32 matrix product "
        f"{report['matmul_peak_gflops']:.0f} GFLOP/s in ONNX Runtime."
    )
    lines = [
        f"## GPT-2 {report['shape']} on {report['cpu']}, {report['threads']} threads",
        "",
        setting,
        "",
        f"| workload | tokens | that differ | {' | '.join(engines)} | peak |",
        "|---" * (len(engines) + 4) + "|",
    ]
    for name, workload in report["workloads"].items():
        by = workload["engines"]
        cells = [
            f"{by[e]['ms_min']:.0f} ({by['plain']['ms_min'] / by[e]['ms_min']:.2f})"
            for e in engines
        ]
        lines.append(
            f"| {name} | {workload['tokens']} | {workload['unique_tokens']} | "
            f"{' | '.join(cells)} | {peak_share(report, name):.0%} |"
        )
    described = (f"- *{name}*: {w['description']}" for name, w in report["workloads"].items())
    worst = {
        e: max(w["engines"][e]["max_difference"] for w in report["workloads"].values())
        for e in engines[1:]
    }
    differences = ", ".join(f"{engine} {value:.1e}" for engine, value in worst.items())
    return "\n".join(
        [
            *lines,
            "",
            f"![Times the plain export](plots/graph-{report['shape']}.svg)",
            "",
            "*Peak*: multiplications of the linear layers for tokens that differ, ours in float32,",
            "as a share of the machine's matrix product; attention and all else count as loss.",
            f"Largest difference of a logit from plain: {differences}.",
            spreads(report),
            *(f"Left out, {name}: {reason}" for name, reason in report.get("missing", {}).items()),
            "",
            *described,
            "",
        ]
    )


def spreads(report: dict) -> str:
    """How far the rounds are apart."""
    found = [
        by["ms_max"] / by["ms_min"]
        for workload in report["workloads"].values()
        for by in workload["engines"].values()
        if "ms_max" in by
    ]
    if not found:
        return ""
    return (
        f"Slowest round over fastest: {np.median(found):.2f} for half of the cells, at most "
        f"{max(found):.2f}."
    )


def peak_share(report: dict, workload: str) -> float:
    """Useful operations a second of ours, float32, over the measured matrix product."""
    width, layers = H[report["shape"]], LAYERS[report["shape"]]
    found = report["workloads"][workload]
    # 12 H^2 weights a block; of the last one only keys and values are for all tokens
    operations = 2 * found["unique_tokens"] * width**2 * (12 * (layers - 1) + 2)
    seconds = found["engines"]["ours"]["ms_min"] / 1e3
    return operations / seconds / (1e9 * report["matmul_peak_gflops"])


def client_section(report: dict) -> str:
    """What the client costs by itself."""
    own = "\n".join(
        f"| {name} | {ms['own_median']:.2f} | {ms['own_p99']:.2f} | {ms['whole_median']:.2f} |"
        for name, ms in report["best_of_8_ms"].items()
    )
    tokenising = "\n".join(f"| {way} | {ms:.2f} |" for way, ms in report["tokenising_ms"].items())
    memory = "\n".join(
        f"| {name} | {sizes[0]:.0f} | {sizes[len(sizes) // 2]:.0f} | {sizes[-1]:.0f} |"
        for name, sizes in report["memory_mb"].items()
    )
    rates = ", ".join(
        f"{rate:.0f} with {n}" for n, rate in report["calls_a_second_by_channels"].items()
    )
    return CLIENT.format(
        cpu=report["cpu"],
        calls=report["calls"],
        memory_calls=f"{report['memory_calls']:,}",
        own=own,
        tokenising=tokenising,
        memory=memory,
        rates=rates,
    )


def truncation_section(report: dict) -> str:
    """Both truncation policies."""
    lines = "\n".join(
        f"| {name} | {report['ms_a_group'][name]:.0f} | "
        f"{report['unique_tokens_a_group'][name]:.0f} |"
        for name in report["ms_a_group"]
    )
    low, middle, high = report["speed_up_of_groups"]
    return TRUNCATION.format(lines=lines, low=low, middle=middle, high=high, **report)


def page() -> str:
    """The whole page."""
    names = ("graph-small.json", "graph-medium.json")
    reports = [json.loads((RESULTS / name).read_text()) for name in names]
    linear = json.loads((RESULTS / "linear.json").read_text())
    lines = "\n".join(
        f"| {name} | {way['speed_up']:.2f} | {way['gops']:.0f} | {way['max_error_in_stds']:.3f} |"
        for name, way in linear["ways"].items()
    )
    ways = WAYS.format(rows=linear["rows"], threads=linear["threads"], lines=lines)
    client = client_section(json.loads((RESULTS / "client.json").read_text()))
    truncation = truncation_section(json.loads((RESULTS / "truncation.json").read_text()))
    served = [
        section(json.loads((RESULTS / name).read_text()))
        for name, (section, _plots) in SERVER.items()
        if (RESULTS / name).exists()
    ]
    graphs = map(graph_section, reports)
    sections = [INTRODUCTION, *graphs, *served, ways, client, truncation]
    return "\n".join(sections).rstrip() + "\n"


def drawn() -> dict[Path, str]:
    """The plots by file."""
    found = {}
    for name, (_section, names) in SERVER.items():
        if (RESULTS / name).exists():
            report = json.loads((RESULTS / name).read_text())
            found |= {
                PLOTS / f"{plot}.svg": plots.draw(getattr(plots, plot), report) for plot in names
            }
    for shape in H:
        report = json.loads((RESULTS / f"graph-{shape}.json").read_text())
        found[PLOTS / f"graph-{shape}.svg"] = plots.draw(plots.graph, report)
    return found


def main() -> None:
    """Write or check."""
    wanted = {PAGE: page(), **drawn()}
    if "--check" in sys.argv:
        differ = [str(f) for f, text in wanted.items() if not f.exists() or f.read_text() != text]
        sys.exit(f"not what the results say: {', '.join(differ)}" if differ else None)
    PLOTS.mkdir(exist_ok=True)
    for file, text in wanted.items():
        file.write_text(text)


if __name__ == "__main__":
    main()
