"""Rewards through a real Ray cluster of two workers; one is killed, or the server restarted.

`test_scorer_ray.py` runs these in a process of their own.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from numpy.typing import NDArray
from waiting import eventually

from reward_client import Tokenizer
from reward_client.scorer import RewardScorer
from reward_client.testing import FakeServer

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray warns about its own code

N_ROWS = 1600
HUNG_S = 600.0  # Ray takes minutes to start two workers on a busy machine


def rewards(ids: NDArray[np.int32]) -> NDArray[np.float32]:
    """Rewards that depend on every token."""
    sums = (ids.astype(np.int64) * np.arange(1, ids.shape[1] + 1)).sum(axis=1) % 99991
    return (sums / 7).astype(np.float32)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_AUTH_MODE"] = "disabled"  # otherwise Ray writes a token into the home folder
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    yield
    ray.shutdown()


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "rows"
    folder.mkdir()
    for first in range(0, N_ROWS, 200):
        texts = [f"{number} bottles" for number in range(first, first + 200)]
        numbers = list(range(first, first + 200))
        pq.write_table(pa.table({"n": numbers, "text": texts}), folder / f"{first}.parquet")
    return folder


def marked(scorer: RewardScorer, folder: Path) -> Callable[[Any], Any]:
    """The scorer, which also leaves the ID of its process in a folder."""
    folder.mkdir()

    def score(batch: Any) -> Any:
        (folder / str(os.getpid())).touch()
        return scorer(batch)

    return score


def scored(shards: Path, score: Callable[[Any], Any]) -> list[dict[str, Any]]:
    data = ray.data.read_parquet(str(shards)).repartition(16)  # otherwise all is one block
    found = data.map_batches(score, batch_size=50, batch_format="pyarrow", concurrency=2)
    return sorted(found.take_all(), key=lambda row: row["n"])


def assert_each_once_and_right(rows: list[dict[str, Any]]) -> None:
    assert [row["n"] for row in rows] == list(range(N_ROWS))
    wanted = rewards(Tokenizer().encode_rows([f"{number} bottles" for number in range(N_ROWS)]))
    np.testing.assert_array_equal(np.array([row["reward"] for row in rows], np.float32), wanted)
    assert {(row["model"], row["model_version"]) for row in rows} == {("gpt2_reward", 1)}


@pytest.mark.usefixtures("cluster")
def test_every_row_is_scored_once_though_a_worker_is_killed(shards: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    workers, may_answer = tmp_path / "workers", threading.Event()

    def held(ids: NDArray[np.int32]) -> NDArray[np.float32]:
        may_answer.wait(HUNG_S)
        return rewards(ids)

    with FakeServer(held) as server:
        score = marked(RewardScorer(server.url, text_column="text"), workers)
        run = threading.Thread(target=lambda: rows.extend(scored(shards, score)))
        run.start()
        assert eventually(lambda: len(server.requests) >= 2, within_s=HUNG_S)  # one per worker
        killed, _ = (int(path.name) for path in workers.iterdir())
        os.kill(killed, signal.SIGKILL)
        # otherwise the other one could do the rest before a third has started
        assert eventually(lambda: len([*workers.iterdir()]) > 2, within_s=HUNG_S)
        may_answer.set()
        run.join()
        n_scored = sum(map(len, server.requests))
    assert_each_once_and_right(rows)
    assert n_scored > N_ROWS  # what was lost has been scored again


@pytest.mark.usefixtures("cluster")
def test_every_row_is_scored_once_though_the_server_restarts(shards: Path) -> None:
    rows: list[dict[str, Any]] = []
    with FakeServer(rewards) as server:
        server.delay_s = 0.1
        scorer = RewardScorer(server.url, text_column="text")
        run = threading.Thread(target=lambda: rows.extend(scored(shards, scorer)))
        run.start()
        assert eventually(lambda: len(server.requests) > 4, within_s=HUNG_S)
    n_first = sum(map(len, server.requests))
    with FakeServer(rewards, port=int(server.url.rpartition(":")[2])) as again:
        run.join()
    assert 0 < n_first < N_ROWS
    assert sum(map(len, again.requests)) > 0
    assert_each_once_and_right(rows)
