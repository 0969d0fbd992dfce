"""The remote reward protocol of OpenRLHF, on a real uvicorn."""

import asyncio
from collections.abc import Callable, Iterator

import aiohttp
import grpc
import httpx
import pytest
from last_token import last_token, wanted
from waiting import eventually

from reward_client import OverloadedError, Tokenizer
from reward_client.testing import FakeServer
from reward_text import FORMATS, Usage

MESSAGES = [{"role": "user", "content": "Hi"}]
PROMPT = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer(last_token, max_batch_rows=8, usage=Usage(FORMATS["chai"])) as server:
        yield server


@pytest.fixture
def service(gateway: Callable[..., str]) -> str:
    """The address of a gateway."""
    return gateway()


def test_openrlhfs_workers_are_answered(fake: FakeServer, service: str) -> None:
    async def one(session: aiohttp.ClientSession, text: str) -> dict:
        # the payload of SingleTurnAgentExecutor._fetch_rewards_via_http
        payload = {"query": [text], "prompts": ["Hi"], "labels": [None]}
        async with session.post(f"{service}/get_reward", json=payload) as response:
            response.raise_for_status()
            return await response.json()

    async def workers() -> list[dict]:
        async with aiohttp.ClientSession() as session:
            return await asyncio.gather(*(one(session, f"Hi n{i}") for i in range(64)))

    for i, answer in enumerate(asyncio.run(workers())):
        (reward,) = wanted(f"Hi n{i}")
        assert answer == {"rewards": [reward], "scores": [reward], "extra_logs": {}}
    assert len(fake.requests) < 64


@pytest.mark.parametrize(
    "label", [MESSAGES, {"messages": MESSAGES, "user_name": "User"}], ids=["list", "object"]
)
def test_replies_to_messages_are_rendered_as_the_model_wants_them(
    fake: FakeServer, service: str, label: object
) -> None:
    asked = {
        "query": [f"{PROMPT}Fine, you?<|im_end|>\n", "a whole text", f"{PROMPT} Good."],
        "prompts": [PROMPT, "", PROMPT],
        "labels": [label, "42", label],
    }
    answer = httpx.post(f"{service}/get_reward", json=asked).json()
    texts = ["User: Hi\nBot: Fine, you?", "a whole text", "User: Hi\nBot: Good."]
    assert answer["rewards"] == wanted(*texts)
    rows = {tuple(row) for request in fake.requests for row in request.tolist()}
    assert rows >= {tuple(row) for row in Tokenizer().encode_rows(texts).tolist()}


@pytest.mark.parametrize(
    ("prompt", "query"),
    [
        (f"<|im_start|>user\n{'word ' * 99}Hi<|im_end|>\n<|im_start|>assistant\n", "{kept}Good."),
        (PROMPT, f"\ufffd{PROMPT[5:]}Good."),
        (PROMPT, f"<s>{PROMPT}Good.<|im_end|>"),
        (f"Oh ?\n{PROMPT}", f"Oh?\n{PROMPT}Good."),
    ],
    ids=["cut on the left", "cut within a character", "with a token before it", "other spaces"],
)
def test_a_response_is_found_after_a_prompt_that_is_not_as_it_was(
    service: str, prompt: str, query: str
) -> None:
    asked = {
        "query": [query.replace("{kept}", prompt[200:])],
        "prompts": [prompt],
        "labels": [MESSAGES],
    }
    answer = httpx.post(f"{service}/get_reward", json=asked).json()
    assert answer["rewards"] == wanted("User: Hi\nBot: Good.")


def test_labels_without_roles_are_not_messages(service: str) -> None:
    asked = {
        "query": ["a whole text"],
        "prompts": ["a"],
        "labels": [[{"input": "1", "output": "2"}]],
    }
    answer = httpx.post(f"{service}/get_reward", json=asked)
    assert answer.json()["rewards"] == wanted("a whole text")


def test_names_that_are_null_in_a_label_are_left_out(service: str) -> None:
    label = {"messages": [*MESSAGES], "bot_name": None, "user_name": None, "persona": None}
    asked = {"query": [f"{PROMPT}Good."], "prompts": [PROMPT], "labels": [label]}
    answer = httpx.post(f"{service}/get_reward", json=asked)
    assert answer.json()["rewards"] == wanted("User: Hi\nBot: Good.")


def test_errors_name_the_query_and_no_group(fake: FakeServer, service: str) -> None:
    asked = {
        "query": [f"{PROMPT}Good."] * 2,
        "prompts": [PROMPT] * 2,
        "labels": [MESSAGES, [{"role": "tool", "content": "4"}]],
    }
    answer = httpx.post(f"{service}/get_reward", json=asked)
    assert answer.json()["message"].startswith("query 1: message 0 has a role")
    fake.config.parameters.pop("version.1")
    answer = httpx.post(f"{service}/get_reward", json={**asked, "labels": [MESSAGES] * 2})
    assert (answer.status_code, answer.json()["error"]) == (501, "NoFormatError")
    assert answer.json()["message"].startswith("the context is a conversation")


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"no json", 422, "InvalidInputError"),
        (b"[" * 100_000, 422, "InvalidInputError"),
        (b"[]", 422, "InvalidInputError"),
        (b'{"query": "one text"}', 422, "InvalidInputError"),
        (b'{"query": ["a", 1]}', 422, "InvalidInputError"),
        (b'{"query": ["a\\ud800"]}', 422, "InvalidInputError"),
        (b'{"query": ["secret words!"]}', 422, "NonFiniteRewardError"),
        (b'{"query": ["a"], "labels": [[{"role": "user", "content": "a"}]]}', 422, ""),
        (b'{"query": ["a"], "prompts": ["b"], "labels": [{"messages": []}]}', 422, ""),
        (b'{"query": ["a"], "prompts": ["a"], "labels": [{"messages": 1}]}', 422, ""),
    ],
)
def test_a_bad_body_says_why(service: str, body: bytes, status: int, kind: str) -> None:
    answer = httpx.post(f"{service}/get_reward", content=body)
    assert (answer.status_code, answer.json()["error"]) == (status, kind or "InvalidInputError")
    assert "secret" not in answer.text
    assert httpx.post(f"{service}/get_reward", json={"query": []}).json()["rewards"] == []


@pytest.mark.parametrize(
    ("code", "words", "status", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, "gone", 503, "UnavailableError"),
        (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size", 503, OverloadedError.__name__),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "late", 504, "DeadlineError"),
        (grpc.StatusCode.INTERNAL, "broken", 502, "InternalError"),
    ],
)
def test_the_servers_failures_have_a_status(
    fake: FakeServer, service: str, code: grpc.StatusCode, words: str, status: int, kind: str
) -> None:
    assert httpx.get(f"{service}/health").json()["model_version"] == 1
    fake.fail_with = (code, words)
    answer = httpx.post(f"{service}/get_reward", json={"query": ["Hi"]})
    assert (answer.status_code, answer.json()["error"]) == (status, kind)
    assert eventually(lambda: httpx.get(f"{service}/health").status_code == status)
