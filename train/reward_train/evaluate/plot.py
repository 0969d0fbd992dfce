"""Plots of what an evaluation found; needs the extra `[evaluate]`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from reward_train.evaluate.quality import Quality, Scored, rewards_of

# can be told apart by people who are colour-blind
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9")
MARKERS = "os^Dv"


def draw(
    file: Path, qualities: Mapping[str, Quality], scored: Mapping[str, Sequence[Scored]]
) -> None:
    """Draw best-of-N accuracy, and rewards against the first one's, into a PNG, SVG or PDF file.

    Args:
        file: its extension chooses the format.
        qualities: by name, in the order of the legend.
        scored: the groups of each, by the same names.

    Raises:
        OSError: the file cannot be written.
        ValueError: the extension is not of a picture.
    """
    mpl.use("agg")
    first, *others = qualities
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        n_panels = 2 if others else 1
        figure, panels = plt.subplots(
            1, n_panels, figsize=(4.8 * n_panels, 3.6), layout="constrained", squeeze=False
        )
        _best_of(panels[0, 0], qualities)
        if others:
            _against(panels[0, 1], first, {name: scored[name] for name in qualities})
        figure.savefig(file, dpi=144)
        plt.close(figure)


def _best_of(axes: Axes, qualities: Mapping[str, Quality]) -> None:
    places = list(next(iter(qualities.values())).first_of)
    for (name, one), colour, marker in zip(qualities.items(), COLOURS * 9, MARKERS * 9):  # noqa: B905
        found = list(one.first_of.values())
        error = [[e.mean - e.low for e in found], [e.high - e.mean for e in found]]
        mean = [e.mean for e in found]
        axes.errorbar(places, mean, error, color=colour, marker=marker, capsize=3, label=name)
    axes.plot(places, [1 / n for n in places], color="grey", linestyle=":", label="by chance")
    axes.set_xscale("log", base=2)
    axes.set_xticks(places, [str(n) for n in places])
    axes.set(xlabel="candidates (N)", ylabel="the best one comes first", ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)


def _against(axes: Axes, first: str, scored: Mapping[str, Sequence[Scored]]) -> None:
    x = rewards_of(scored[first])
    for (name, groups), colour in zip(scored.items(), COLOURS * 9):  # noqa: B905
        if name != first:
            axes.plot(x, rewards_of(groups), ".", color=colour, markersize=2, label=name)
    ends = [float(x.min()), float(x.max())]
    axes.plot(ends, ends, color="grey", linestyle=":")
    axes.set(xlabel=f"reward, {first}", ylabel="reward, the other")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, markerscale=5)
