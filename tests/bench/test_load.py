"""The load generator's arithmetic, and its loops against the real server."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from reward_bench.load import (
    Call,
    Load,
    Outcome,
    Request,
    WrongAnswerError,
    check,
    closed_loop,
    drive,
    no_stall_s,
    once,
    open_loop,
    outcome_of,
    percentiles_ms,
    poisson_arrivals,
    steady_rows_a_second,
    summary,
    unanswered_s,
)
from reward_bench.report import plots
from reward_bench.report import server as server_report
from reward_bench.report import service as service_report
from reward_bench.serving import throughput
from reward_client import RewardClient
from reward_serve.server import TritonServer
from reward_text import Tokenizer

TEXTS = ["Hello there", "How are you today?\nFine, thanks"]


class StalledSender:
    """Has a clock of its own, which only the first call advances, by the stall."""

    def __init__(self, stall_s: float) -> None:
        self.stall_s, self.clock_s = stall_s, 0.0

    def now(self) -> float:
        return self.clock_s

    async def send(self, number: int, intended_s: float) -> Call:
        sent_s = self.now()
        self.clock_s += self.stall_s if number == 0 else 0.0
        return Call(intended_s, sent_s, self.now(), "ok", 1)


class CountingSender(StalledSender):
    """Counts the calls that are on their way at once, and remembers which were sent."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.numbers: list[int] = []
        self.in_flight = self.most = 0

    async def send(self, number: int, intended_s: float) -> Call:
        self.numbers.append(number)
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        await asyncio.sleep(0)
        self.in_flight -= 1
        return await super().send(number, intended_s)


def call(intended_s: float, done_s: float, outcome: Outcome = "ok", n_rows: int = 1) -> Call:
    return Call(intended_s, intended_s, done_s, outcome, n_rows)


def test_arrivals_are_poisson() -> None:
    arrivals = poisson_arrivals(200.0, 100.0, np.random.default_rng(0))
    gaps = np.diff(arrivals)
    assert arrivals[0] >= 0
    assert arrivals[-1] < 100
    assert len(arrivals) == pytest.approx(20_000, abs=4 * 20_000**0.5)
    assert gaps.mean() == pytest.approx(1 / 200, rel=0.03)
    assert gaps.std() == pytest.approx(1 / 200, rel=0.03), "equal to the mean: exponential"
    per_second = np.bincount(arrivals.astype(int))
    assert per_second.var() == pytest.approx(per_second.mean(), rel=0.4)


def test_arrivals_follow_the_seed() -> None:
    first, again, other = (
        poisson_arrivals(5.0, 20.0, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


def test_percentiles() -> None:
    found = percentiles_ms([i / 1000 for i in range(101)])
    assert found == pytest.approx({"p50": 50, "p90": 90, "p95": 95, "p99": 99, "max": 100})
    assert percentiles_ms([]) == {}


def test_latency_counts_from_the_intended_time() -> None:
    late = Call(intended_s=1.0, sent_s=5.0, done_s=6.0, outcome="ok", n_rows=1)
    found = summary([late])
    assert found["latency_ms"]["p50"] == pytest.approx(5000)
    assert found["generator_behind_ms"]["p50"] == pytest.approx(4000)


def test_calls_that_a_stall_holds_up_count_from_their_own_time() -> None:
    calls = asyncio.run(open_loop(np.array([0.0, 0.1, 0.2]))(StalledSender(3.0)))
    assert [c.intended_s for c in calls] == [0.0, 0.1, 0.2]
    assert calls[1].latency_s > 2.5
    assert calls[2].latency_s > 2.5


def test_each_request_is_sent_once_and_as_many_at_once_as_asked() -> None:
    sender = CountingSender()
    calls = asyncio.run(once(7, 3)(sender))
    assert sender.numbers == list(range(7))
    assert sender.most == 3
    assert len(calls) == 7


def test_refusals_are_no_latency() -> None:
    calls = [call(0, 1), call(0, 0.002, "overloaded"), call(0, 9, "expired")]
    found = summary(calls)
    assert found["outcomes"] == {"ok": 1, "overloaded": 1, "expired": 1}
    assert found["latency_ms"]["max"] == pytest.approx(1000)
    assert found["refusal_ms"]["max"] == pytest.approx(2)


def test_throughput_leaves_out_filling_and_draining() -> None:
    # two in flight, two rows per call: a slow first round, then one call per second, one too late
    calls = [call(0, done, n_rows=2) for done in (5, 5, 6, 7, 8, 9, 20)]
    assert steady_rows_a_second(calls, 2, 10) == pytest.approx(8 / 4)


def test_throughput_of_too_few_calls_is_an_error() -> None:
    with pytest.raises(ValueError, match="too few"):
        steady_rows_a_second([call(0, 1)], 1, 1)


@pytest.mark.parametrize(
    ("words", "outcome"),
    [
        ("[request id: <id_unknown>] Exceeds maximum queue size", "overloaded"),
        ("Request timeout expired", "expired"),
        ("failed to connect", "failed"),
    ],
)
def test_outcomes_by_the_servers_words(words: str, outcome: str) -> None:
    assert outcome_of(InferenceServerException(words)) == outcome


def test_a_time_unanswered_is_seen_and_work_for_others_is_not() -> None:
    busy = [call(0.0, 1.0), call(0.1, 2.0), call(0.2, 2.01), call(5.0, 6.0)]
    assert unanswered_s(busy) == pytest.approx([1.0, 1.0, 0.01, 1.0])
    overslept = [call(0.0, 1.0), call(0.1, 2.5), call(9.0, 9.1, "expired")]
    assert unanswered_s(overslept) == pytest.approx([1.0, 1.5])
    overtaken = [call(0.0, 3.0), call(1.0, 2.0)]
    assert unanswered_s(overtaken) == pytest.approx([2.0, 1.0]), "the first waited the whole time"


def test_without_stalls_calls_wait_for_those_before_them_only() -> None:
    assert no_stall_s([0.5, 1.0, 1.2, 9.0], 1.0) == pytest.approx([1.0, 1.5, 2.3, 1.0])


@pytest.mark.parametrize("rewards", [[1.0, 2.1], [np.nan, 2.0], [1.0]])
def test_wrong_answers_are_errors(rewards: list[float]) -> None:
    with pytest.raises(WrongAnswerError):
        check(np.array(rewards, np.float32), np.array([1, 2], np.float32), 1e-3)


@pytest.fixture
def request_(server: TritonServer) -> Request:
    with RewardClient(server.grpc_url) as client:
        rewards = client.score(TEXTS).rewards
    return Request(Tokenizer().encode_rows(TEXTS), np.array(rewards, np.float32))


def test_loops_against_a_server(server: TritonServer, request_: Request) -> None:
    load = Load([request_])
    arrivals = np.array([0.0, 0.01, 0.02, 0.03])
    closed, opened = drive(
        server.grpc_url, (load, closed_loop(2, 0.0)), (load, open_loop(arrivals))
    )
    assert len(closed) == 6, "three calls by each caller"
    assert [c.intended_s for c in opened] == arrivals.tolist()
    assert {c.outcome for c in (*closed, *opened)} == {"ok"}
    assert all(c.intended_s <= c.sent_s <= c.done_s for c in (*closed, *opened))


def test_a_wrong_answer_ends_the_run(server: TritonServer, request_: Request) -> None:
    wrong = Request(request_.ids, request_.rewards[::-1])
    with pytest.raises(WrongAnswerError):
        drive(server.grpc_url, (Load([request_, wrong]), closed_loop(1, 0.0)))


def test_a_model_that_is_not_there_fails_the_calls(server: TritonServer, request_: Request) -> None:
    (calls,) = drive(server.grpc_url, (Load([request_], model="nobody"), closed_loop(1, 0.0)))
    assert {c.outcome for c in calls} == {"failed"}
    with pytest.raises(RuntimeError, match=r"3 of 3 calls of 1 callers were not .*'failed': 3"):
        throughput(server.grpc_url, Load([request_], model="nobody"), 1, 0.0)


def test_the_service_suite_runs_as_shipped(tmp_path: Path) -> None:
    found = measured("service", tmp_path, "--precision=int8", "--service-calls=10")
    assert found["max_batch_size"] == 16, "as `gpt2-reward serve` sets it on a CPU"
    assert list(found["callers"]["rows_per_second"]) == ["1", "4", "8", "16", "64"]
    offered = found["stalls"]["offered"]
    assert {share: by["calls"] for share, by in offered.items()} == {"0.2": 10, "0.5": 10}
    section = service_report.section(found)
    assert "| 64 | " in section
    by = offered["0.5"]["ideal_ms"]
    assert f"| {by['p99'] / by['p50']:.2f} | | |" in section


def measured(suite: str, folder: Path, *options: str) -> dict[str, Any]:
    """The result that a suite writes for a tiny model."""
    quick = ("--quick", "--seconds=0.02", "--rounds=1", f"--output={folder}")
    done = subprocess.run(
        [sys.executable, "-m", "reward_bench", suite, *quick, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads((folder / f"{suite}-tiny.json").read_text())
    return found


def test_the_server_suite_runs(tmp_path: Path) -> None:
    found = measured("server", tmp_path, "--server-calls=10")
    assert found["seed"] == 0
    assert found["shape"] == "tiny"
    assert found["precision"] == "fp32"
    assert found["efficiency"]["rows_an_execution"] > 8
    assert set(found["sharing"]) == {"0.0", "0.25", "0.5", "0.75", "0.9"}
    kinds = ["best of 1", "best of 4", "best of 8", "best of 16"]
    assert list(found["latency"]) == kinds
    assert {by["calls"] for kind in kinds for by in found["latency"][kind]["offered"].values()} == {
        10
    }
    assert list(found["price"]["best-of-16 over best-of-4"]) == ["plain"], "no vLLM was named"
    section = server_report.section(found)
    assert "## The server" in section
    assert "The price of best-of-16 here, over that of best-of-4: " in section
    for plot in (plots.concurrency, plots.latency, plots.sharing, plots.batch):
        assert plots.draw(plot, found) == plots.draw(plot, found), "the same bytes each time"
