"""Bulk scoring with a model: the command against the load generator, and the order of a file.

Each text is a line of its own. One server with the configuration as shipped is asked in turn by the
command, which reads, tokenises and writes, and by the load generator, whose token ids are made
beforehand. The generator sends the same rows in as many requests at once, and checks that they get
the rewards that the command wrote. The file with short chats is also scored in a random order.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reward_bench.load import Request, WrongAnswerError, once
from reward_bench.rounds import interleaved, ratio, spread
from reward_bench.serving import BULK, Host, calls_of, shipped
from reward_bench.suite import CLIENT, SERVED, SHAPES, Report, Setting, Suite, option, say
from reward_bench.texts import N_CANDIDATES, Texts, distinct_groups, long_groups
from reward_text import Tokenizer

IN_FLIGHT = 8  # as many as the command has
FULL_SHARE = 4  # times fewer full rows than short chats, since one costs several times as much

Rewards = NDArray[np.float32]


@dataclass(frozen=True)
class Options:
    """How large the files are."""

    groups: int = option(128, "contexts, with eight candidates each", quick=16, kind=int)


class File:
    """Groups of texts as lines that have numbers as ids; `rewards` has the command's, by id.

    Args:
        groups: the texts.
        order: of the lines; as they come unless given.
    """

    def __init__(self, groups: Sequence[Texts], order: Sequence[int] | None = None) -> None:
        pairs = [(context, candidate) for context, some in groups for candidate in some]
        self._texts = [context + candidate for context, candidate in pairs]
        self._lines = [
            json.dumps({"id": number, "context": pairs[number][0], "candidate": pairs[number][1]})
            for number in (range(len(pairs)) if order is None else order)
        ]
        self.rewards: Rewards = np.zeros(0, np.float32)

    def by_command(self, url: str, folder: Path) -> float:
        """Rows per second of the command, its start included."""
        source, output = folder / "in.jsonl", folder / "out.jsonl"
        for path in folder.glob("out.jsonl*"):
            path.unlink()
        source.write_text("".join(f"{line}\n" for line in self._lines))
        command = [str(Path(sys.executable).with_name("gpt2-reward")), "score", f"--url={url}"]
        options = [f"--input={source}", f"--output={output}", f"--in-flight={IN_FLIGHT}"]
        began = time.perf_counter()
        subprocess.run([*command, *options], check=True, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
        found = [json.loads(line) for line in output.read_text().splitlines()]
        found.sort(key=lambda one: one["id"])
        self.rewards = np.array([one["reward"] for one in found], np.float32)
        return len(found) / seconds

    def by_generator(self, served: Host) -> float:
        """Rows per second of the load generator, which wants the command's rewards."""
        ids, size = Tokenizer().encode_rows(self._texts), served.max_batch_size()
        starts = range(0, len(ids), size)
        pool = [Request(ids[i : i + size], self.rewards[i : i + size]) for i in starts]
        load = served.load(pool, priority=BULK)
        calls = calls_of(served.url, load, once(len(pool), IN_FLIGHT), IN_FLIGHT)
        return len(ids) / max(call.done_s for call in calls)


def run(setting: Setting, own: Options) -> Report:
    """Rows per second of each file and way, and the ratios that matter."""
    groups = distinct_groups(own.groups, setting.seed)
    order = np.random.default_rng(setting.seed).permutation(N_CANDIDATES * len(groups))
    chats, shuffled = File(groups), File(groups, order.tolist())
    full = File(long_groups(own.groups // FULL_SHARE, setting.seed))
    with tempfile.TemporaryDirectory() as name, shipped(setting) as served:
        url, folder = served.url, Path(name)
        File(groups[:1]).by_command(url, folder)  # the first requests are slow
        rates = interleaved(
            {
                "chats": partial(chats.by_command, url, folder),
                "chats, generator": partial(chats.by_generator, served),
                "chats, shuffled": partial(shuffled.by_command, url, folder),
                "full rows": partial(full.by_command, url, folder),
                "full rows, generator": partial(full.by_generator, served),
            },
            setting.rounds,
        )
    furthest = float(np.abs(chats.rewards - shuffled.rewards).max())
    if furthest > served.tolerance:
        raise WrongAnswerError(f"the order of the file has changed a reward by {furthest}")
    found = {name: spread(values) for name, values in rates.items()}
    say(f"rows per second: {found}")
    return {
        "checkpoint": setting.checkpoint or SHAPES[setting.shape],
        "rows": {"chats": len(chats.rewards), "full rows": len(full.rewards)},
        "rows_a_second": found,
        "of_the_generator": {
            name: ratio(rates[name], rates[f"{name}, generator"]) for name in ("chats", "full rows")
        },
        "gain_of_order": ratio(rates["chats"], rates["chats, shuffled"]),
        "furthest": furthest,
        "cores": os.cpu_count(),
    }


SUITE = Suite(
    name="bulk_served",
    about="bulk scoring with a model: the command against the load generator, and a file's order",
    file="bulk_served-{shape}.json",
    measures=(*CLIENT, *SERVED),
    takes=frozenset({"shape", "device", "checkpoint", "precision", "seed", "rounds"}),
    options=Options,
    run=run,
)
