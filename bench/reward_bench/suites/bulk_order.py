"""What the order of a file is worth: candidates next to others of their context, or shuffled.

Each candidate is a line of its own. The command scores both files on one server in turn, and the
two rewards of each candidate are compared: only the order may differ.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reward_bench.load import WrongAnswerError
from reward_bench.serving import EXACT, REDUCED, host
from reward_bench.suite import CLIENT, SERVED, SHAPES, Report, Setting, Suite, option, say
from reward_bench.texts import N_CANDIDATES, distinct_groups

Lines = list[dict[str, object]]
Rewards = NDArray[np.float64]


@dataclass(frozen=True)
class Options:
    """How large the files are."""

    groups: int = option(64, "contexts, with eight candidates each", quick=16, kind=int)


def run(setting: Setting, own: Options) -> Report:
    """Rows per second of each order, by round, and the ratio of the medians."""
    ordered = [
        {"id": N_CANDIDATES * g + c, "context": context, "candidate": candidate}
        for g, (context, candidates) in enumerate(distinct_groups(own.groups, setting.seed))
        for c, candidate in enumerate(candidates)
    ]
    order = np.random.default_rng(setting.seed).permutation(len(ordered))
    files = {"ordered": ordered, "shuffled": [ordered[i] for i in order]}
    with tempfile.TemporaryDirectory() as folder, host(setting) as served:
        rates, rewards = measure(served.url, files, Path(folder), setting.rounds)
    furthest = float(np.abs(rewards["ordered"] - rewards["shuffled"]).max())
    if furthest > (EXACT if setting.precision == "fp32" else REDUCED):
        raise WrongAnswerError(f"the order of the file has changed a reward by {furthest}")
    medians = {name: statistics.median(found) for name, found in rates.items()}
    say(f"rows per second: {medians}")
    return {
        "checkpoint": setting.checkpoint or SHAPES[setting.shape],
        "precision": setting.precision,
        "rows": len(ordered),
        "rows_a_second": rates,
        "gain": medians["ordered"] / medians["shuffled"],
        "furthest": furthest,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[1],
    }


def measure(
    url: str, files: dict[str, Lines], folder: Path, rounds: int
) -> tuple[dict[str, list[float]], dict[str, Rewards]]:
    """Rows per second of each file in each round, and its rewards by id."""
    rates: dict[str, list[float]] = {name: [] for name in files}
    rewards: dict[str, Rewards] = {}
    score(url, files["ordered"][:N_CANDIDATES], folder)  # the first requests are slow
    for _ in range(rounds):
        for name, lines in files.items():
            seconds, rewards[name] = score(url, lines, folder)
            rates[name].append(len(lines) / seconds)
    return rates, rewards


def score(url: str, lines: Lines, folder: Path) -> tuple[float, Rewards]:
    """Seconds that the command takes for a file, its start included, and the rewards by id."""
    source, output = folder / "in.jsonl", folder / "out.jsonl"
    for path in folder.glob("out.jsonl*"):
        path.unlink()
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = Path(sys.executable).with_name("gpt2-reward")
    began = time.perf_counter()
    subprocess.run(
        [command, "score", f"--url={url}", f"--input={source}", f"--output={output}"],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    seconds = time.perf_counter() - began
    found = [json.loads(line) for line in output.read_text().splitlines()]
    return seconds, np.array([one["reward"] for one in sorted(found, key=lambda one: one["id"])])


SUITE = Suite(
    name="bulk_order",
    about="bulk scoring of a file with candidates of one context in a row, and of it shuffled",
    file="bulk_order-{shape}.json",
    measures=(*CLIENT, *SERVED),
    takes=frozenset({"shape", "device", "checkpoint", "precision", "seed", "rounds"}),
    options=Options,
    run=run,
)
