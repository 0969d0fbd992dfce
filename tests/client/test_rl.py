"""The adapters for RL trainers; TRL's own trainer is in tests/end_to_end/test_trl.py."""

import asyncio
import importlib.util
import pickle
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import trustme
from last_token import last_token, wanted

from reward_client import (
    AsyncRewardClient,
    DeadlineError,
    InvalidInputError,
    NoFormatError,
    NonFiniteRewardError,
    OverloadedError,
    Tokenizer,
    UnavailableError,
)
from reward_client.rl import batcher as batching
from reward_client.rl import verl
from reward_client.rl.batcher import Batcher
from reward_client.rl.text import in_groups
from reward_client.rl.trl import AsyncTrlReward, TrlReward
from reward_client.testing import FakeServer
from reward_text import FORMATS, Usage


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    usage = Usage(FORMATS["lines"])
    with FakeServer(last_token, max_batch_rows=8, usage=usage) as server:
        yield server


PROMPTS, COMPLETIONS = ["Hi", "Hi", "Hello", "Hi"], [" you", " there", " all", " again"]
TEXTS = ["Hi you", "Hi there", "Hello all", "Hi again"]


def test_a_trl_reward_is_a_list_in_the_order_of_the_completions(fake: FakeServer) -> None:
    reward = TrlReward(fake.url, name="accepted")
    found = reward(
        prompts=PROMPTS, completions=COMPLETIONS, completion_ids=[[1]] * 4, label=[0] * 4
    )
    assert found == wanted(*TEXTS)
    assert reward.__name__ == "accepted"
    assert fake.parameters[0]["priority"] == 2


def test_conversational_data_is_rendered(fake: FakeServer) -> None:
    prompts = [[{"role": "user", "content": "Hi"}]]
    completions = [[{"role": "assistant", "content": [{"type": "text", "text": "Fine, you?"}]}]]
    TrlReward(fake.url)(prompts=prompts, completions=completions)
    np.testing.assert_array_equal(fake.requests[0], Tokenizer().encode_rows(["Hi\nFine, you?"]))

    def render(messages: list[dict[str, str]]) -> str:
        return "".join(f"{message['role']}> " for message in messages)

    TrlReward(fake.url, render=render)(prompts=prompts, completions=completions)
    np.testing.assert_array_equal(fake.requests[1], Tokenizer().encode_rows(["user> assistant> "]))


def test_plain_and_conversational_data_of_the_same_dialogue_have_the_same_reward(
    fake: FakeServer,
) -> None:
    turns = ["Hi", "Hello! How are you?", "Fine."]
    replies = ["Good to hear.", "Great", "And what did you do today?\nNothing?"]
    messages = [{"role": "user", "content": turn} for turn in turns]
    answers = [[{"role": "assistant", "content": reply}] for reply in replies]
    reward = TrlReward(fake.url)
    plain = reward(prompts=["\n".join(turns) + "\n"] * 3, completions=replies)
    assert reward(prompts=[messages] * 3, completions=answers) == plain
    assert plain == wanted(*replies), "read at the last token of the reply"


def test_conversational_data_is_in_the_models_format_unless_told(fake: FakeServer) -> None:
    prompts = [[{"role": "user", "content": "Hi"}]] * 2
    completions = [[{"role": "assistant", "content": reply}] for reply in ("Oh\n", "Well")]
    TrlReward(fake.url, chat_format="chai")(prompts=prompts, completions=completions)
    wanted = Tokenizer().encode_rows(["User: Hi\nBot: Oh", "User: Hi\nBot: Well"])
    np.testing.assert_array_equal(fake.requests[0], wanted)
    fake.show(Usage(FORMATS["pygmalion"]))
    TrlReward(fake.url)(prompts=prompts, completions=completions)
    np.testing.assert_array_equal(fake.requests[1], wanted)
    fake.config.parameters.pop("version.1")
    with pytest.raises(NoFormatError):
        TrlReward(fake.url)(prompts=prompts, completions=completions)


def test_a_message_without_text_is_refused(fake: FakeServer) -> None:
    reward = TrlReward(fake.url)
    for completion in ([{"role": "assistant", "content": None}], [], [{"role": "user"}] * 2):
        with pytest.raises(InvalidInputError, match=r"render|neither text"):
            reward(prompts=["Hi"], completions=[completion])
    with pytest.raises(InvalidInputError, match="2 prompts and 1 completions"):
        in_groups(["a", "b"], ["c"])


@pytest.mark.parametrize("kind", [TrlReward, AsyncTrlReward])
def test_a_used_reward_function_is_pickled_without_its_connection(
    fake: FakeServer, kind: type
) -> None:
    async def called(reward: AsyncTrlReward) -> list[float]:
        return await reward(prompts=PROMPTS, completions=COMPLETIONS)

    def call(reward: TrlReward | AsyncTrlReward) -> list[float]:
        if isinstance(reward, AsyncTrlReward):
            return asyncio.run(called(reward))
        return reward(prompts=PROMPTS, completions=COMPLETIONS)

    reward = kind(fake.url, truncation="shared_context", name="other")
    assert call(reward) == wanted(*TEXTS)
    copy = pickle.loads(pickle.dumps(reward))  # noqa: S301  # our own
    assert copy.__name__ == "other"
    assert call(copy) == wanted(*TEXTS)
    assert call(reward) == wanted(*TEXTS), "in a new event loop as well"


def test_verl_gets_one_float_a_response(fake: FakeServer) -> None:
    async def all_scores() -> list[float]:
        calls = (
            verl.compute_score("data", response, None, {"context": "Hi"}, url=fake.url)
            for response in [" you", " there", " again"] * 20
        )
        return await asyncio.gather(*calls)

    for _ in range(2):  # each with an event loop of its own
        assert asyncio.run(all_scores()) == wanted("Hi you", "Hi there", "Hi again") * 20
    assert len(fake.requests) < 60, "they were sent together"


def test_verl_renders_messages_in_the_models_format() -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    with FakeServer(last_token, usage=Usage(FORMATS["chai"])) as fake:
        for context in (messages, np.array(messages, object)):  # the second as Parquet gives it
            call = verl.compute_score("data", " you\n", None, {"context": context}, url=fake.url)
            assert [asyncio.run(call)] == wanted("User: Hi\nBot: Hello\nBot: you")
        rows = Tokenizer().encode_rows(["User: Hi\nBot: Hello\nBot: you"])
        np.testing.assert_array_equal(fake.requests, [rows, rows])


def test_verl_refuses_messages_if_the_model_names_no_format(fake: FakeServer) -> None:
    fake.config.parameters.pop("version.1")
    context = [{"role": "user", "content": "Hi"}]
    with pytest.raises(NoFormatError, match=r"^the context is a conversation"):
        asyncio.run(verl.compute_score("data", " you", None, {"context": context}, url=fake.url))


def test_verl_keeps_nothing_of_event_loops_that_are_closed(fake: FakeServer) -> None:
    for _ in range(5):
        call = verl.compute_score("data", " you", None, {"context": "Hi"}, url=fake.url)
        assert [asyncio.run(call)] == wanted("Hi you")
    assert len(verl._BATCHERS) == 1


def test_verl_loads_it_from_its_file(fake: FakeServer) -> None:
    # as verl.utils.import_utils.load_extern_object does with a path
    spec = importlib.util.spec_from_file_location("custom_module", Path(verl.__file__))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    call = module.compute_score(
        data_source="x",
        solution_str=" you",
        ground_truth=None,
        extra_info={"before": "Hi", "num_turns": None},
        reward_router_address=None,
        url=fake.url,
        context_key="before",
    )
    assert [asyncio.run(call)] == wanted("Hi you")


def call_verl(**reward_kwargs: object) -> float:
    return asyncio.run(verl.compute_score("data", " you", None, {"context": "Hi"}, **reward_kwargs))


def test_verl_reaches_headers_version_and_retries(fake: FakeServer) -> None:
    given = {"url": [fake.url], "headers": {"authorization": "Bearer x"}, "model_version": 1}
    assert [call_verl(**given, truncation="left")] == wanted("Hi you")
    assert fake.headers[-1]["authorization"] == "Bearer x"
    fake.fail_with = (grpc.StatusCode.UNAVAILABLE, "gone")
    with pytest.raises(UnavailableError) as caught:
        call_verl(**given, attempts=2)
    assert caught.value.attempts == 2


def test_verl_reaches_servers_with_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "roots.pem"))
    issued = authority.issue_cert("127.0.0.1")
    pair = (issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes())
    credentials = grpc.ssl_server_credentials([pair])
    with FakeServer(last_token, credentials=credentials) as fake:
        found = call_verl(url=fake.url, tls_roots=str(tmp_path / "roots.pem"))
    assert [found] == wanted("Hi you")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"time_out": 3}, "unknown names: time_out; known are url, context_key, timeout_s"),
        ({"truncation": "shared_context"}, "without its group"),
    ],
)
def test_verl_refuses_what_it_does_not_know(
    fake: FakeServer, wrong: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        call_verl(url=fake.url, **wrong)
    assert [call_verl(url=fake.url, reward_model_tokenizer=None)] == wanted("Hi you")


def test_verl_says_what_is_missing() -> None:
    with pytest.raises(InvalidInputError, match="no 'context' that is a text or messages"):
        asyncio.run(verl.compute_score("data", " you", None, {}))


def test_an_item_that_cannot_be_scored_fails_alone(fake: FakeServer) -> None:
    async def score() -> list[object]:
        async with AsyncRewardClient(fake.url) as client:
            batcher = Batcher(client)
            items = [["Hi you"], ["no!"], ["a", "\ud800"], ["Hello all", "Hi there"], []]
            return await asyncio.gather(*map(batcher.rewards, items), return_exceptions=True)

    first, poisoned, invalid, last, nothing = asyncio.run(score())
    assert first == wanted("Hi you")
    assert isinstance(poisoned, NonFiniteRewardError)
    assert isinstance(invalid, InvalidInputError)
    assert invalid.row == 1
    assert last == wanted("Hello all", "Hi there")
    assert nothing == []


def test_poisoned_items_cost_no_further_call(fake: FakeServer) -> None:
    async def score() -> list[object]:
        async with AsyncRewardClient(fake.url) as client:
            await client.connect()
            fake.delay_s = 0.05
            batcher = Batcher(client)
            items = [["x"]] * 4 + [["Hi you"], ["a", "no!"], ["Hi there"], ["bad!"]]
            return await asyncio.gather(*map(batcher.rewards, items), return_exceptions=True)

    found = asyncio.run(score())
    assert [found[4], found[6]] == [wanted("Hi you"), wanted("Hi there")]
    assert [found[5].rows, found[7].rows] == [(1,), (0,)]
    assert len(fake.requests) == 4 + 1, "four alone, and the rest together"


def test_waiting_for_a_call_to_spare_counts_and_has_an_end(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "MAX_WAITING", 3)

    async def score() -> list[object]:
        async with AsyncRewardClient(fake.url) as client:
            await client.connect()
            fake.delay_s = 0.6
            batcher = Batcher(client, timeout_s=0.2)
            items = [[f"n{i}"] for i in range(10)]
            return await asyncio.gather(*map(batcher.rewards, items), return_exceptions=True)

    kinds = [type(error) for error in asyncio.run(score())]
    assert kinds == [DeadlineError] * 7 + [OverloadedError] * 3, "4 on their way, 3 waiting"


def test_many_small_items_make_few_calls(fake: FakeServer) -> None:
    async def score() -> list[list[float]]:
        async with AsyncRewardClient(fake.url) as client:
            batcher = Batcher(client)
            fake.delay_s = 0.02
            return await asyncio.gather(*(batcher.rewards([f"n{i}"]) for i in range(200)))

    assert asyncio.run(score()) == [wanted(f"n{i}") for i in range(200)]
    assert len(fake.requests) <= 4 + 200 // 8
