"""How long the batcher should wait for more calls: one server, a copy of the model for each delay.

Callers in a closed loop rank best-of-4 groups of different contexts, at each delay in turn; the
rounds are interleaved, so that other work of the machine affects all delays alike. Every answer is
compared with the first delay's.
"""

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from reward_bench.load import WrongAnswerError
from reward_bench.serving import CONFIG, publish, served_from, with_number
from reward_bench.suite import SERVED, SHAPES, NoOptions, Report, Setting, Suite, say
from reward_bench.texts import Texts
from reward_client import RewardClient
from reward_contract import MODEL_NAME

DELAYS_US = (0, 500, 2000, 10000)
CALLERS = (1, 2, 8)
N_GROUPS, N_CANDIDATES = 16, 4
CONTEXT_WORDS, CANDIDATE_WORDS = 120, 40


def run(setting: Setting, _own: NoOptions) -> Report:
    """Median milliseconds and candidates per second, by callers and delay."""
    n_layer, _, n_embd = SHAPES[setting.shape]
    given = Path(setting.checkpoint).name if setting.checkpoint else None
    with tempfile.TemporaryDirectory() as folder:
        repository = make_repository(setting, Path(folder))
        with served_from(setting, repository) as served:
            rows = measure(served.url, setting.rounds, setting.seconds)
    for row in rows:
        say(str(row))
    return {
        "checkpoint": given or f"{n_layer} layers, {n_embd} wide",
        "cores": os.cpu_count(),
        "load": os.getloadavg()[1],
        "rows": rows,
    }


def make_repository(setting: Setting, folder: Path) -> Path:
    """A repository with a copy of the exported model for each delay."""
    published = publish(setting, folder / "published", ()) / MODEL_NAME
    configuration = (published / CONFIG.name).read_text()
    for delay_us in DELAYS_US:
        copy = folder / "delayed" / name_of(delay_us)
        shutil.copytree(published / "1", copy / "1", copy_function=os.link)
        text = configuration.replace(f'"{MODEL_NAME}"', f'"{name_of(delay_us)}"')
        text = with_number(text, "max_queue_delay_microseconds", delay_us)
        (copy / CONFIG.name).write_text(text)
    return folder / "delayed"


def name_of(delay_us: int) -> str:
    """The name of the model with this delay."""
    return f"delay_{delay_us}"


def measure(url: str, rounds: int, seconds: float) -> list[dict[str, float]]:
    """The median over the rounds, for each delay and number of callers."""
    words = np.random.default_rng(0).choice(["the", "cat", "sat", "on", "my", "old", "mat"], 10**5)
    groups = [
        (
            " ".join(words[1000 * i :][:CONTEXT_WORDS]) + "\n",
            [" ".join(words[1000 * i + 200 * j :][:CANDIDATE_WORDS]) for j in range(N_CANDIDATES)],
        )
        for i in range(N_GROUPS)
    ]
    found: dict[tuple[int, int], list[tuple[float, float]]] = {}
    clients = {d: RewardClient(url, model=name_of(d)) for d in DELAYS_US}
    right = [[c.index for c in clients[DELAYS_US[0]].rank(*group)] for group in groups]
    for _ in range(rounds):
        for n_callers in CALLERS:
            for delay_us, client in clients.items():
                latencies_s, wall_s = ask(client, groups, right, n_callers, seconds)
                per_s = N_CANDIDATES * len(latencies_s) / wall_s
                found.setdefault((n_callers, delay_us), []).append(
                    (statistics.median(latencies_s) * 1e3, per_s)
                )
    for client in clients.values():
        client.close()
    return [
        {
            "callers": n_callers,
            "delay_us": delay_us,
            "median_ms": round(statistics.median(ms for ms, _ in values), 2),
            "candidates_per_s": round(statistics.median(rate for _, rate in values), 1),
        }
        for (n_callers, delay_us), values in found.items()
    ]


def ask(
    client: RewardClient,
    groups: Sequence[Texts],
    right: Sequence[Sequence[int]],
    n_callers: int,
    seconds: float,
) -> tuple[list[float], float]:
    """Latencies in seconds of `n_callers` that ask without a pause, and the seconds of all."""
    end = time.monotonic() + seconds
    latencies_s: list[float] = []

    def call(caller: int) -> None:
        i = caller
        while time.monotonic() < end:
            began = time.perf_counter()
            ranking = client.rank(*groups[i % N_GROUPS])
            latencies_s.append(time.perf_counter() - began)
            if [candidate.index for candidate in ranking] != right[i % N_GROUPS]:
                raise WrongAnswerError("a delay has changed an answer")
            i += 1

    began = time.monotonic()
    with ThreadPoolExecutor(n_callers) as pool:
        list(pool.map(call, range(n_callers)))
    return latencies_s, time.monotonic() - began


SUITE = Suite(
    name="queue_delay",
    about="served: how long the batcher should wait for more calls",
    file="queue_delay.json",
    measures=SERVED,
    takes=frozenset({"shape", "device", "checkpoint", "precision", "seed", "seconds", "rounds"}),
    options=NoOptions,
    run=run,
    seconds=2.0,
    rounds=5,
)
