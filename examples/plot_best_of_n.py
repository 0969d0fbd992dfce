"""Plot how often the best of N replies is found, by the shipped checkpoint and by their length.

    pip install 'gpt2-reward[export,serve,evaluate,chitchat]'
    python examples/plot_best_of_n.py best-of-n.svg

It exports `checkpoints/chitchat`, serves it with a real tritonserver, and ranks groups of 16
candidates from conversations that the checkpoint was not trained on: a real reply that the partner
answered, among replies of other conversations. With --url it asks a server that is running already.
"""

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from reward_client import RewardClient
from reward_export.export import ExportOptions, export
from reward_serve.server import ServerOptions, TritonServer
from reward_train.chitchat import dialogues
from reward_train.dialogues import LabelledGroup, groups, split_of
from reward_train.evaluate.quality import Quality, Scored, quality

CHECKPOINT = Path(__file__).parents[1] / "checkpoints" / "chitchat"
GROUPS_A_CALL = 16


@contextmanager
def served(url: str | None) -> Iterator[str]:
    """A reward server's address: the one given, or that of a server with the shipped checkpoint."""
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "repository"
        export(ExportOptions(str(CHECKPOINT), repository), print)
        options = ServerOptions(repository, grpc_port=0, http_port=0, metrics_port=0)
        with TritonServer(options) as server:
            yield server.grpc_url


def held_out(limit: int | None) -> list[LabelledGroup]:
    """Groups of the conversations that were set aside before the checkpoint was trained."""
    found = [dialogue for dialogue in dialogues() if split_of(dialogue.id) == "test"]
    return list(islice(groups(found), limit))


def scored_by_model(asked: Sequence[LabelledGroup], url: str) -> list[Scored]:
    """Rewards of the served model."""
    rankings = []
    with RewardClient(url, priority="bulk") as client:
        for start in range(0, len(asked), GROUPS_A_CALL):
            some = asked[start : start + GROUPS_A_CALL]
            rankings += client.rank_many([(one.context, one.candidates) for one in some])
    return [Scored(ranking.rewards, one.best) for one, ranking in zip(asked, rankings, strict=True)]


def scored_by_length(asked: Sequence[LabelledGroup]) -> list[Scored]:
    """Lengths as rewards: the longest candidate wins."""
    return [Scored(np.array([*map(len, one.candidates)], np.float32), one.best) for one in asked]


def draw(file: Path, qualities: Mapping[str, Quality]) -> None:
    """Draw a line for each, with 95 % intervals, and what chance would give."""
    mpl.rcParams.update(
        {"svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False}
    )
    figure, axes = plt.subplots(figsize=(5.6, 3.6), layout="constrained")
    sizes = list(next(iter(qualities.values())).first_of)
    for name, one in qualities.items():
        found = one.first_of.values()
        means = [100 * estimate.mean for estimate in found]
        spread = [
            [100 * (estimate.mean - estimate.low) for estimate in found],
            [100 * (estimate.high - estimate.mean) for estimate in found],
        ]
        axes.errorbar(sizes, means, spread, marker="o", capsize=3)
        axes.annotate(name, (sizes[-1], means[-1]), (6, 0), textcoords="offset points", va="center")
    axes.plot(sizes, [100 / n for n in sizes], linestyle=":", color="grey")
    axes.annotate("chance", (sizes[-1], 100 / sizes[-1]), (6, 4), textcoords="offset points")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.set(xlabel="N candidates", ylabel="real reply chosen, %", ylim=(0, 100))
    figure.savefig(file)


def main() -> None:
    """Score, print, plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plot", type=Path, help="file to write: .svg, .png or .pdf")
    parser.add_argument("--url", help="address of a running reward server; default: start one")
    parser.add_argument("--limit", type=int, help="groups to rank; default: all 2,320")
    given = parser.parse_args()
    asked = held_out(given.limit)
    with served(given.url) as url:
        model = scored_by_model(asked, url)
    qualities = {"reward model": quality(model), "longest reply": quality(scored_by_length(asked))}
    for name, one in qualities.items():
        shares = ", ".join(f"{e.mean:.1%} of {n}" for n, e in one.first_of.items())
        print(f"{name}: chooses the real reply {shares} candidates, {len(asked):,} groups")
    draw(given.plot, qualities)


if __name__ == "__main__":
    main()
