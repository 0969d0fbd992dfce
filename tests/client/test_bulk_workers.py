"""Rows that other processes tokenise: the same output, and one that can be continued."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bulk_elsewhere import tokenise_elsewhere
from bulk_files import LINES, read, score, write

from reward_client import AsyncRewardClient, errors
from reward_client.bulk import Job, WorkerError, score_file, workers
from reward_client.bulk.workers import Workers
from reward_client.testing import FakeServer
from reward_text import FORMATS, Tokenizer, Usage
from reward_text.worker import Order

TALK = {
    "messages": [{"role": "user", "content": "Wie geht's?"}],
    "candidates": ["Gut 😀", "你好\n"],
}
ALL_LINES: list[dict[str, Any]] = [
    *LINES,
    {"text": "word " * 400, "id": 7},
    {"context": "no blank" * 300, "candidates": ["é ü", ""]},
    {"text": 7},
    TALK,
]
OPTIONS = ("--truncation=shared_context", "--max-rejected=0.5")


def sums(ids: np.ndarray) -> np.ndarray:
    """Rewards that depend on every token."""
    return (ids.astype(np.int64) * np.arange(1, ids.shape[1] + 1)).sum(axis=1) % 99991 / 7


@pytest.fixture
def chats() -> Iterator[FakeServer]:
    with FakeServer(sums, usage=Usage(FORMATS["pygmalion"], max_tokens=300)) as server:
        yield server


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenise_elsewhere(monkeypatch)


@pytest.fixture
def by_others(monkeypatch: pytest.MonkeyPatch) -> list[Order]:
    """The orders whose rows came from another process."""
    tokenise_elsewhere(monkeypatch)
    found: list[Order] = []
    rows = Workers.rows

    async def noted(self: Workers, order: Order) -> Any:
        answer = await rows(self, order)
        found.extend([order] * (answer is not None))
        return answer

    monkeypatch.setattr(Workers, "rows", noted)
    return found


def test_the_output_does_not_depend_on_who_tokenises(
    chats: FakeServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    data = write(tmp_path / "in.jsonl", ALL_LINES * 40)
    assert score(chats, data, tmp_path / "a.jsonl", *OPTIONS) == 0
    by_others: list[Order] = request.getfixturevalue("by_others")
    assert score(chats, data, tmp_path / "b.jsonl", *OPTIONS) == 0
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    lines = sum(len(order.groups) + len(order.texts) for order in by_others)
    assert lines == 40 * (len(ALL_LINES) - 1)


def test_a_reload_with_another_window_and_format_is_noticed(
    chats: FakeServer, tmp_path: Path, by_others: list[Order], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(tmp_path / "in.jsonl", [TALK, {"text": "word " * 400}])
    shown = Usage(FORMATS["chai"], max_tokens=200)

    def reloaded(ids: np.ndarray) -> np.ndarray:
        chats.version = 2
        chats.show(shown, version=2)
        return sums(ids)

    monkeypatch.setattr(chats, "_rewards", reloaded)
    assert score(chats, data, tmp_path / "out.jsonl") == 0
    tokenizer, group = Tokenizer(200), shown.texts(TALK["messages"], TALK["candidates"])
    first, second = read(tmp_path / "out.jsonl")
    assert first["rewards"] == pytest.approx(sums(tokenizer.encode_group(*group).ids))
    assert [second["reward"]] == pytest.approx(sums(tokenizer.encode_rows(["word " * 400])))
    assert {order.usage.max_tokens for order in by_others} == {200, 300}


@pytest.mark.usefixtures("elsewhere")
def test_what_is_wrong_is_found_by_the_run_itself(
    fake: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "in.jsonl", [TALK])  # and the model does not say its format
    assert score(fake, data, tmp_path / "out.jsonl") == 1
    assert "group 0: the context is a conversation" in capsys.readouterr().err


@pytest.mark.usefixtures("elsewhere")
def test_a_process_that_dies_ends_the_run_and_the_next_one_continues(
    chats: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(tmp_path / "in.jsonl", [{"text": f"{i} bottles"} for i in range(1000)])
    job = Job(data, tmp_path / "out.jsonl", in_flight=2)
    rows, n_orders = Workers.rows, 0

    async def killed(self: Workers, order: Order) -> Any:
        nonlocal n_orders
        n_orders += 1
        if n_orders == 5:
            self._ready[0]._process.kill()
        return await rows(self, order)

    async def run() -> None:
        async with AsyncRewardClient(chats.url) as client:
            await score_file(job, client)

    with monkeypatch.context() as patch:
        patch.setattr(Workers, "rows", killed)
        with pytest.raises(WorkerError, match=rf"ended with code -{signal.SIGKILL:d}"):
            asyncio.run(run())
    assert issubclass(WorkerError, errors.RewardError)
    assert 0 < len(read(job.output)) < 1000
    asyncio.run(run())
    assert [item["line"] for item in read(job.output)] == list(range(1, 1001))


@pytest.mark.usefixtures("elsewhere")
def test_processes_end_with_the_run_whatever_they_do() -> None:
    async def run() -> Any:
        started = Workers()
        order = Order(["Hi"], [], "left", Usage())
        await started.rows(order)
        (worker,) = started._ready
        busy = asyncio.create_task(worker.rows(Order(["x" * 10_000_000], [], "left", Usage())))
        await asyncio.sleep(0)
        await started.close()
        with pytest.raises(WorkerError):
            await busy
        with pytest.raises(WorkerError):
            await started.rows(order)
        return worker._process.pid

    pid = asyncio.run(run())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("program", ["/nonexistent", "/bin/false", sys.executable])
def test_processes_that_cannot_be_started_or_are_not_ready_are_done_without(
    chats: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    monkeypatch.setattr(workers, "FROM_TEXTS", 0)
    monkeypatch.setattr(workers, "BUSY", -1.0)
    monkeypatch.setattr(sys, "executable", program)
    data = write(tmp_path / "in.jsonl", LINES * 100)
    assert score(chats, data, tmp_path / "out.jsonl") == 0
    assert len(read(tmp_path / "out.jsonl")) == 100 * len(LINES)


def test_small_inputs_and_slow_servers_start_none(
    fake: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Workers, "_start", lambda _: pytest.fail("was started"))
    data = tmp_path / "in.jsonl"
    data.write_text("".join(json.dumps({"text": "Hi"}) + "\n" for _ in range(workers.FROM_TEXTS)))
    monkeypatch.setattr(workers, "FROM_TEXTS", workers.FROM_TEXTS + 1)
    assert score(fake, data, tmp_path / "small.jsonl") == 0
    monkeypatch.setattr(workers, "FROM_TEXTS", 0)
    monkeypatch.setattr(workers, "BUSY", 1e9)  # more than this process needs, as with a slow server
    assert score(fake, data, tmp_path / "slow.jsonl") == 0
