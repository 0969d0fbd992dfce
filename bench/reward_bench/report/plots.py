"""Draws result files as small SVG files, the same bytes for the same results.

The colours suit colour-blind readers, and lines differ in their markers as well.
"""

import io
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from reward_bench.report.cells import Report
from reward_bench.report.graph import engines_of

OURS, PLAIN, THIRD, FOURTH = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
STYLE: dict[Any, Any] = {  # matplotlib types each key separately
    "svg.hashsalt": "gpt2-reward",  # otherwise ids would be random
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "figure.figsize": (5.2, 3.0),
}


def draw(plot: Callable[[Axes, Report], None], report: Report) -> str:
    """A plot as the text of an SVG file."""
    mpl.use("svg")
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(layout="constrained")
        plot(axes, report)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def concurrency(axes: Axes, report: Report) -> None:
    """Rows per second by requests in flight, with the spread of the rounds."""
    found = report["concurrency"]["short"]
    for name, colour, marker in (("ours", OURS, "o"), ("plain", PLAIN, "s")):
        counts = [n for n in found if name in found[n]]
        rates = [found[n][name] for n in counts]
        middle = [rate["median"] for rate in rates]
        low = [rate["median"] - rate["min"] for rate in rates]
        high = [rate["max"] - rate["median"] for rate in rates]
        places = [int(n) for n in counts]
        axes.errorbar(
            places, middle, [low, high], color=colour, marker=marker, capsize=3, label=name
        )
    axes.set(xlabel="best-of-8 calls in flight", ylabel="rows per second", ylim=(0, None))


def latency(axes: Axes, report: Report) -> None:
    """Milliseconds by offered load and kind of call."""
    colours = (OURS, PLAIN, THIRD, FOURTH)
    for (regime, by_share), colour in zip(report["latency"].items(), colours, strict=False):
        found = by_share["offered"]
        shares = [100 * float(share) for share in found]
        for name, style in (("p50", "o-"), ("p99", "s--")):
            times = [by["latency_ms"][name] for by in found.values()]
            axes.plot(shares, times, style, color=colour, label=f"{regime} chats, {name}")
    axes.set(xlabel="offered load, % of capacity", ylabel="milliseconds", yscale="log")


def sharing(axes: Axes, report: Report) -> None:
    """Speed relative to the plain export, by the share of tokens that a group shares."""
    found = report["sharing"]
    shares = [100 * float(share) for share in found]
    middle = [by["median"] for by in found.values()]
    low = [by["median"] - by["min"] for by in found.values()]
    high = [by["max"] - by["median"] for by in found.values()]
    axes.errorbar(shares, middle, [low, high], color=OURS, marker="o", capsize=3)
    axes.axhline(1, color=PLAIN, linestyle="--")
    axes.set(
        xlabel="% of tokens shared, best-of-8", ylabel="speed, plain export = 1", ylim=(0, None)
    )


def batch(axes: Axes, report: Report) -> None:
    """Milliseconds per row, by rows per request."""
    found = report["batch"]
    axes.plot(list(found), [by["median"] for by in found.values()], "o-", color=OURS)
    axes.set(xlabel="full rows in a request", ylabel="milliseconds per row", ylim=(0, None))


def overload(axes: Axes, report: Report) -> None:
    """Calls meant to be sent in each second, and how many of them were answered."""
    found = report["timeline"]
    seconds = [by["second"] for by in found]
    axes.plot(seconds, [by["calls"] for by in found], color=PLAIN, label="offered")
    axes.plot(seconds, [by["answered"] for by in found], color=OURS, label="of these, answered")
    capacity = report["capacity_calls_a_second"]
    axes.axhline(capacity, color=THIRD, linestyle="--", label="capacity")
    axes.set(xlabel="second", ylabel="calls per second", ylim=(0, None))


def graph(axes: Axes, report: Report) -> None:
    """Speed relative to the plain export, by workload and engine."""
    workloads = report["workloads"]
    engines = [name for name in engines_of(report) if name != "plain"]
    width = 0.8 / len(engines)
    for i, engine in enumerate(engines):
        ratios = [
            by["engines"]["plain"]["ms_min"] / by["engines"][engine]["ms_min"]
            if engine in by["engines"]
            else 0
            for by in workloads.values()
        ]
        places = [number - 0.4 + width * (i + 0.5) for number in range(len(ratios))]
        axes.bar(places, ratios, width, label=engine)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(range(len(workloads)), list(workloads))
    axes.set_ylabel("speed, plain export = 1")
