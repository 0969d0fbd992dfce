"""What a call returns, and which settings of its client one call may override; both clients."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from waiting import HUNG_S

from reward_client import (
    AsyncRewardClient,
    Connection,
    InvalidInputError,
    NonFiniteRewardError,
    RewardClient,
    Tokenizer,
)
from reward_client.testing import FakeServer
from reward_text import Encoded

Connect = Callable[..., RewardClient]
LONG = "word " * 300


def last_token(ids: np.ndarray) -> np.ndarray:
    """The last token as the reward; NaN for texts that end in "!"."""
    lengths = (ids != 50256).sum(axis=1)
    last = ids[np.arange(len(ids)), np.maximum(lengths - 1, 0)]
    return np.where(last == 0, np.nan, last)  # token 0 is "!"


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer(last_token, max_batch_rows=4) as server:
        yield server


def test_a_ranking_has_the_rewards_in_input_order(client: RewardClient) -> None:
    candidates = [" one", " two", " three", ""]
    wanted = [Tokenizer().encode("Hi" + candidate)[-1] for candidate in candidates]
    ranking = client.rank("Hi", candidates)
    assert ranking.rewards.dtype == np.float32
    assert ranking.rewards.tolist() == wanted
    assert [one.reward for one in ranking] == sorted(wanted, reverse=True)
    assert client.rank("Hi", []).rewards.shape == (0,)


def test_tokens_and_truncation_are_told_of_each_candidate(client: RewardClient) -> None:
    ranking = client.rank("Hi", [" you", LONG, " you there"])
    by_index = sorted(ranking, key=lambda one: one.index)
    assert [one.n_tokens for one in by_index] == [2, 256, 3]
    assert [one.is_truncated for one in by_index] == [False, True, False]
    assert [Tokenizer().n_tokens("Hi" + one.text) for one in by_index] == [2, 302, 3]
    scores = client.score([LONG, "Hi"])
    assert scores.lengths.tolist() == [256, 1]
    assert scores.is_truncated.tolist() == [True, False]


def test_one_candidate_without_a_reward_need_not_cost_the_others(client: RewardClient) -> None:
    ranking = client.rank("Hi", [" you", "!", " there"], on_error="nan")
    assert np.isnan(ranking.rewards).tolist() == [False, True, False]
    assert [one.index for one in ranking][-1] == 1
    assert ranking.best.index in {0, 2}
    assert np.isnan(client.score(["a!", "b"], on_error="nan").rewards).tolist() == [True, False]
    many = client.rank_many([("", ["a!"]), ("", ["b", "c!"])], on_error="nan")
    assert [np.isnan(one.rewards).tolist() for one in many] == [[True], [False, True]]
    with pytest.raises(NonFiniteRewardError):
        client.rank("Hi", [" you", "!"])
    with pytest.raises(ValueError, match="on_error"):
        client.score(["a"], on_error="ignore")


@pytest.mark.parametrize(
    ("bad", "row", "texts"),
    [
        (("Hi", ["one", None]), 1, ["one", None]),
        (("Hi", ["one", "\udfff"]), 1, ["one", "\udfff"]),
        ((None, ["one", "two"]), None, ["one", "two"]),
        (("Hi", "one candidate"), None, []),
        (("Hi",), None, []),
        ("Hi", None, []),
        (7, None, []),
    ],
)
def test_a_group_that_cannot_be_scored_need_not_cost_the_others(
    client: RewardClient, bad: Any, row: int | None, texts: list
) -> None:
    good = ("Hi", [" you", " there"])
    first, unscored, last = client.rank_many([good, bad, good], on_error="nan")
    assert first == last == client.rank(*good)
    assert first.error is None
    assert [one.text for one in unscored] == texts
    assert [one.index for one in unscored] == list(range(len(texts)))
    assert np.isnan(unscored.rewards).all()
    assert unscored.model_version is None
    assert (unscored.error.group, unscored.error.row) == (1, row)
    assert unscored.error.__traceback__ is None, "it would keep every text of the call"
    assert client.rank_many([bad], on_error="nan")[0].error is not None
    with pytest.raises(InvalidInputError, match="group 1") as caught:
        client.rank_many([good, bad, good])
    assert (caught.value.group, caught.value.row) == (1, row)


def test_a_call_may_truncate_otherwise(fake: FakeServer, client: RewardClient) -> None:
    candidates = ["yes", "no, not at all, never"]
    client.rank(LONG, candidates, truncation="shared_context")
    client.rank_many([(LONG, candidates)], truncation="shared_context")
    client.rank(LONG, candidates)
    shared = Tokenizer().encode_group(LONG, candidates, "shared_context").ids
    left = Tokenizer().encode_group(LONG, candidates).ids
    for found, wanted in zip(fake.requests, [shared, shared, left], strict=True):
        np.testing.assert_array_equal(found, wanted)
    with pytest.raises(ValueError, match="truncation"):
        client.rank("", ["a"], truncation="right")


def test_a_call_may_ask_another_version_and_send_its_own_headers(
    fake: FakeServer, client: RewardClient
) -> None:
    client.connect()
    client.score(["Hi"], model_version=1, headers={"x-request-id": "7"})
    assert fake.versions == ["1"]
    assert fake.headers[-1]["x-request-id"] == "7"
    client.score(["Hi"])
    assert fake.versions == ["1", ""]
    assert "x-request-id" not in fake.headers[-1]
    with pytest.raises(ValueError, match="header"):
        client.score(["Hi"], headers={"X": "7"})


@pytest.mark.usefixtures("clock")
def test_headers_may_come_from_a_function(fake: FakeServer, connect: Connect) -> None:
    tokens = iter(range(100))
    connection = Connection(metadata=lambda: {"authorization": f"Bearer {next(tokens)}"})
    client = connect(fake.url, connection=connection)
    client.score(["Hi"])
    client.score(["Hi"])
    sent = [headers["authorization"] for headers in fake.headers]
    assert sent == [f"Bearer {number}" for number in range(5)]


def test_tokenising_many_groups_lets_an_event_loop_turn(fake: FakeServer) -> None:
    groups = [(f"{number} {LONG}", [f"reply {i}" for i in range(8)]) for number in range(128)]

    async def turns() -> int:
        n_turns = 0
        async with AsyncRewardClient(fake.url) as client:
            fake.requests.clear()
            call = asyncio.ensure_future(client.rank_many(groups))
            while not fake.requests:
                await asyncio.sleep(0)
                n_turns += 1
            call.cancel()
        return n_turns

    assert asyncio.run(turns()) > 20


@pytest.mark.parametrize("method", ["score", "rank"])
def test_tokenising_what_cannot_be_cut_lets_an_event_loop_turn(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    text, turned = "a" * 200_000, threading.Event()
    encode = {"score": Tokenizer.encode_texts, "rank": Tokenizer.encode_group}[method]

    def held(*arguments: Any) -> Encoded:
        assert turned.wait(HUNG_S), "the event loop is blocked"
        return encode(*arguments)

    monkeypatch.setattr(Tokenizer, encode.__name__, held)

    async def call() -> None:
        async with AsyncRewardClient(fake.url) as client:
            waiting = client.score([text]) if method == "score" else client.rank(text, ["a"])
            task = asyncio.ensure_future(waiting)
            asyncio.get_running_loop().call_soon(turned.set)  # after the task has begun
            await task

    asyncio.run(call())
    with RewardClient(fake.url) as client:
        client.rank(text, ["a"])
