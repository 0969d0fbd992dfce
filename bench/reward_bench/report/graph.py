"""The section of a result file of the suite `graph`."""

import numpy as np

from reward_bench.report.cells import Report
from reward_bench.suite import SHAPES

# column -> the engine whose share it gives, and the matrix product that it is a share of
PEAKS = {
    "peak": ("ours", "ONNX Runtime float32"),
    "peak, int8": ("ours-int8", "ONNX Runtime int8"),
}
ENOUGH = 0.9  # of the threads given: an engine that keeps fewer busy is not at its best


def section(report: Report, plot: str = "") -> str:
    """The section as Markdown: a table of engines by workload, its plot if any, and notes."""
    engines = engines_of(report)
    shares = {column: PEAKS[column] for column in PEAKS if PEAKS[column][1] in peaks_of(report)}
    lines = [
        f"## GPT-2 {report['shape']} on {report['cpu']}, {report['threads']} threads",
        "",
        setting(report),
        "",
        f"| workload | tokens | that differ | {' | '.join([*engines, *shares])} |",
        "|---" * (3 + len(engines) + len(shares)) + "|",
    ]
    for name, workload in report["workloads"].items():
        cells = [cell(workload["engines"], engine) for engine in engines]
        cells += [f"{peak_share(report, name, *share):.0%}" for share in shares.values()]
        lines.append(
            f"| {name} | {workload['tokens']} | {workload['unique_tokens']} | {' | '.join(cells)} |"
        )
    described = (f"- *{name}*: {w['description']}" for name, w in report["workloads"].items())
    worst = {
        engine: max(by["max_difference"] for by in measured(report, engine))
        for engine in engines[1:]
    }
    differences = ", ".join(f"{engine} {value:.1e}" for engine, value in worst.items())
    return "\n".join(
        [
            *lines,
            "",
            *([f"![Speed relative to the plain export](plots/{plot}.svg)", ""] if plot else []),
            "*Peak*: the rate of multiplications in the linear layers of ours for tokens that",
            "differ, as a share of the machine's rate in one matrix product of that type in ONNX",
            "Runtime; attention and everything else count as loss.",
            f"Largest difference of a logit from the plain export's: {differences}.",
            *busy(report),
            *spreads(report),
            *(f"Left out, {name}: {reason}." for name, reason in report.get("missing", {}).items()),
            "",
            *described,
            "",
        ]
    )


def engines_of(report: Report) -> list[str]:
    """Every engine that ran any workload, in order of first appearance."""
    by_workload = [workload["engines"] for workload in report["workloads"].values()]
    return list(dict.fromkeys(engine for engines in by_workload for engine in engines))


def measured(report: Report, engine: str) -> list[Report]:
    """An engine's figures, for each workload that it ran."""
    by_workload = [workload["engines"] for workload in report["workloads"].values()]
    return [engines[engine] for engines in by_workload if engine in engines]


def cell(by_engine: Report, engine: str) -> str:
    """Milliseconds, and in brackets the speed relative to plain; a dash if it did not run."""
    if engine not in by_engine:
        return "-"
    ms = by_engine[engine]["ms_min"]
    return f"{ms:.0f} ({by_engine['plain']['ms_min'] / ms:.2f})"


def setting(report: Report) -> str:
    """Versions, rounds, and the machine's rates of a matrix product."""
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    rivals = (
        f"{rival} in an environment with " + ", ".join(f"{n} {v}" for n, v in found.items())
        for rival, found in report.get("rival_versions", {}).items()
    )
    return "; ".join(
        [
            versions,
            *rivals,
            f"{report['rounds']} rounds",
            "one matrix product in GFLOP/s: "
            + ", ".join(f"{name} {peak:.0f}" for name, peak in peaks_of(report).items())
            + ".",
        ]
    )


def busy(report: Report) -> list[str]:
    """Processors that each engine keeps busy; engines that leave some idle are marked."""
    found = {
        engine: np.mean([by["processors"] for by in measured(report, engine)])
        for engine in engines_of(report)
        if all("processors" in by for by in measured(report, engine))
    }
    if not found:
        return []
    cells = (
        f"**{engine} {mean:.2f}, which leaves some idle**"
        if mean < ENOUGH * report["threads"]
        else f"{engine} {mean:.2f}"
        for engine, mean in found.items()
    )
    return [f"Processors kept busy, of {report['threads']}: {', '.join(cells)}."]


def spreads(report: Report) -> list[str]:
    """How far apart the rounds are."""
    found = [
        by["ms_max"] / by["ms_min"]
        for workload in report["workloads"].values()
        for by in workload["engines"].values()
        if "ms_max" in by
    ]
    if not found:
        return []
    return [
        (
            f"Slowest round over fastest: at most {np.median(found):.2f} for half of the cells "
            f"and {max(found):.2f} for all."
        )
    ]


def peaks_of(report: Report) -> dict[str, float]:
    """GFLOP/s of one matrix product, by library and type."""
    found: dict[str, float] = report["peaks_gflops"]
    return found


def peak_share(report: Report, workload: str, engine: str, peak: str) -> float:
    """Useful operations per second of an engine of ours, over those of the matrix product."""
    layers, _, width = SHAPES[report["shape"]]
    found = report["workloads"][workload]
    # 12 H^2 weights per block; the last one computes only keys and values for all tokens
    operations = 2 * found["unique_tokens"] * width**2 * (12 * (layers - 1) + 2)
    seconds = found["engines"][engine]["ms_min"] / 1e3
    return float(operations / seconds / (1e9 * peaks_of(report)[peak]))
