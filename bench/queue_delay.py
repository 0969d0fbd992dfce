"""How long the batcher should wait for company: one server, a copy of the model for each delay.

    python bench/queue_delay.py CHECKPOINT [--precision int8] [--rounds 5]

Callers in a closed loop ask for best-of-4 groups of unlike contexts, at each delay in turn; the
rounds are interleaved, so that what else the machine does falls on all delays alike. Every answer
is compared with the first delay's. Writes JSON.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from reward_client import RewardClient
from reward_contract import MODEL_NAME
from reward_export.export import ExportOptions, export
from reward_serve.server import ServerOptions, TritonServer

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "model_repository" / MODEL_NAME / "config.pbtxt"
DELAYS_US = (0, 500, 2000, 10000)
CALLERS = (1, 2, 8)
N_GROUPS, N_CANDIDATES = 16, 4
CONTEXT_WORDS, CANDIDATE_WORDS = 120, 40


def main() -> None:
    """Measure, and print a table; the JSON goes to --output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one measurement")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        repository = make_repository(Path(folder), arguments.checkpoint, arguments.precision)
        with TritonServer(ServerOptions(repository, "127.0.0.1", 0, 0, 0)) as server:
            rows = measure(server, arguments.rounds, arguments.seconds)
    for row in rows:
        print(json.dumps(row))
    if arguments.output:
        result = {"checkpoint": Path(arguments.checkpoint).name, "precision": arguments.precision}
        result |= {"cores": os.cpu_count(), "load": os.getloadavg()[1], "rows": rows}
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")


def make_repository(folder: Path, checkpoint: str, precision: str) -> Path:
    """The exported model once for each delay."""
    first = folder / "exported"
    (first / MODEL_NAME).mkdir(parents=True)
    shutil.copy2(CONFIG, first / MODEL_NAME)
    version = export(ExportOptions(checkpoint, first, precision=precision), print).path
    for delay_us in DELAYS_US:
        copy = folder / "repository" / name_of(delay_us)
        shutil.copytree(version, copy / "1", copy_function=os.link)
        text = CONFIG.read_text().replace(f'"{MODEL_NAME}"', f'"{name_of(delay_us)}"')
        text = re.sub(r"(max_queue_delay_microseconds:) \d+", rf"\1 {delay_us}", text)
        (copy / CONFIG.name).write_text(text)
    return folder / "repository"


def name_of(delay_us: int) -> str:
    """The model with this delay."""
    return f"delay_{delay_us}"


def measure(server: TritonServer, rounds: int, seconds: float) -> list[dict[str, float]]:
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
    clients = {d: RewardClient(server.grpc_url, model=name_of(d)) for d in DELAYS_US}
    right = [[c.index for c in clients[DELAYS_US[0]].rank(*group)] for group in groups]
    for _ in range(rounds):
        for n_callers in CALLERS:
            for delay_us, client in clients.items():
                latencies_s, wall_s = load(client, groups, right, n_callers, seconds)
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


def load(
    client: RewardClient,
    groups: list[tuple[str, list[str]]],
    right: list[list[int]],
    n_callers: int,
    seconds: float,
) -> tuple[list[float], float]:
    """Latencies in seconds of `n_callers` that ask without a pause, and how long it took."""
    end = time.monotonic() + seconds
    latencies_s: list[float] = []

    def call(caller: int) -> None:
        i = caller
        while time.monotonic() < end:
            began = time.perf_counter()
            ranking = client.rank(*groups[i % N_GROUPS])
            latencies_s.append(time.perf_counter() - began)
            if [candidate.index for candidate in ranking] != right[i % N_GROUPS]:
                raise SystemExit("a delay has changed an answer")
            i += 1

    began = time.monotonic()
    with ThreadPoolExecutor(n_callers) as pool:
        list(pool.map(call, range(n_callers)))
    return latencies_s, time.monotonic() - began


if __name__ == "__main__":
    main()
