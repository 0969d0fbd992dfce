"""The section of a result of the suite `graph`."""

import numpy as np

from reward_bench.report.cells import Report
from reward_bench.suite import SHAPES


def section(report: Report) -> str:
    """A table of engines by workload, and what is to be known about it."""
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


def spreads(report: Report) -> str:
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


def peak_share(report: Report, workload: str) -> float:
    """Useful operations a second of ours, float32, over the measured matrix product."""
    layers, _, width = SHAPES[report["shape"]]
    found = report["workloads"][workload]
    # 12 H^2 weights a block; of the last one only keys and values are for all tokens
    operations = 2 * found["unique_tokens"] * width**2 * (12 * (layers - 1) + 2)
    seconds = found["engines"]["ours"]["ms_min"] / 1e3
    return float(operations / seconds / (1e9 * report["matmul_peak_gflops"]))
