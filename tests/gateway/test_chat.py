"""Best of N, through OpenAI's own clients, in front of a generator that does as it is told."""

import asyncio
import json
import threading
from typing import Any

import grpc
import httpx
import openai
import pytest
from generator import Generator, send
from network import free_port
from waiting import HUNG_S

from reward_client.testing import FakeServer
from reward_gateway.settings import Choosing

MESSAGES = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "How are you?"},
]
BEST = "the longest reply of them all"


def client(url: str, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="caller", max_retries=0, **options)


def test_the_best_of_n_is_answered(gateway: Any, generator: Generator) -> None:
    url = gateway(upstream=generator.url)
    with client(url) as openai_client:
        found = openai_client.chat.completions.create(
            model="tiny", messages=MESSAGES, temperature=0.5, user="u1"
        )
    (choice,) = found.choices
    assert (choice.index, choice.message.content, choice.drawn) == (0, BEST, 2)
    assert 0 < choice.probability < 1
    assert found.best_of_n["n_drawn"] == 4
    assert found.best_of_n["n_distinct"] == 3
    assert found.best_of_n["chat_format"] == "lines"
    assert found.usage.completion_tokens == 12
    (sent,) = generator.requests
    assert sent == {
        "model": "tiny", "messages": MESSAGES, "temperature": 0.5, "user": "u1", "n": 4
    }  # fmt: skip
    assert generator.headers[0]["authorization"] == "Bearer caller"


def test_a_caller_gets_the_best_n_of_its_own(gateway: Any, generator: Generator) -> None:
    url = gateway(upstream=generator.url)
    own = {"best_of_n": {"n": 6, "sampling": "chai"}}
    with client(url) as openai_client:
        found = openai_client.chat.completions.create(
            model="tiny", messages=MESSAGES, n=3, temperature=1.0, extra_body=own
        )
    assert [one.message.content for one in found.choices] == [
        BEST,
        "a little longer",
        "a little longer",
    ]
    assert [one.index for one in found.choices] == [0, 1, 2]
    assert found.choices[1].reward == found.choices[2].reward
    (sent,) = generator.requests
    assert (sent["n"], sent["temperature"], sent["top_p"]) == (6, 1.0, 0.725)
    assert "best_of_n" not in sent


def test_completions_of_a_text(gateway: Any, generator: Generator) -> None:
    with client(gateway(upstream=generator.url)) as openai_client:
        found = openai_client.completions.create(model="tiny", prompt="How are you? ", best_of=3)
    assert [one.text for one in found.choices] == [BEST]
    assert generator.requests[0]["n"] == 3
    assert "best_of" not in generator.requests[0]


@pytest.mark.parametrize("with_usage", [True, False])
def test_the_best_is_streamed(gateway: Any, generator: Generator, with_usage: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if with_usage else {}
    with client(gateway(upstream=generator.url)) as openai_client:
        stream = openai_client.chat.completions.create(
            model="tiny", messages=MESSAGES, stream=True, **options
        )
        chunks = list(stream)
        text = "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
        assert text == BEST
        assert [one.choices[0].finish_reason for one in chunks if one.choices][-1] == "stop"
        assert [one.usage.completion_tokens for one in chunks if one.usage] == [12] * with_usage
        pieces = openai_client.completions.create(model="tiny", prompt="Hi", stream=True)
        assert "".join(one.choices[0].text for one in pieces) == BEST
    assert "stream" not in generator.requests[0]


def test_the_client_that_awaits(gateway: Any, generator: Generator) -> None:
    async def run(url: str) -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k") as openai_client:
            one = openai_client.chat.completions.create(model="tiny", messages=MESSAGES)
            found = await asyncio.gather(*(one for _ in range(1)))
            stream = await openai_client.chat.completions.create(
                model="tiny", messages=MESSAGES, stream=True
            )
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            return [found[0].choices[0].message.content, text]

    assert asyncio.run(run(gateway(upstream=generator.url))) == [BEST, BEST]


def test_a_generator_without_n_is_asked_n_times(gateway: Any, generator: Generator) -> None:
    generator.knows_n = False
    with client(gateway(upstream=generator.url)) as openai_client:
        found = openai_client.chat.completions.create(model="tiny", messages=MESSAGES, seed=7)
    assert found.best_of_n["n_drawn"] == 4
    assert [one.get("n") for one in generator.requests] == [4, None, None, None]
    assert sorted(one["seed"] for one in generator.requests[1:]) == [8, 9, 10]


def test_a_generator_that_refuses_n_is_asked_n_times(gateway: Any, generator: Generator) -> None:
    def refuse(handler: Any, body: dict, _number: int) -> bool:
        if "n" in body:
            send(handler, 400, {"error": {"message": "n has to be 1"}})
        return "n" in body

    generator.respond = refuse
    with client(gateway(upstream=generator.url)) as openai_client:
        found = openai_client.chat.completions.create(model="tiny", messages=MESSAGES)
    assert found.best_of_n["n_drawn"] == 4


def test_tool_calls_are_the_generators_decision(gateway: Any, generator: Generator) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}

    def calls(handler: Any, body: dict, number: int) -> bool:
        answer = generator.answer(handler.path, body, number)
        answer["choices"][0]["message"] = {
            "role": "assistant", "content": None, "tool_calls": [call]
        }  # fmt: skip
        send(handler, 200, answer)
        return True

    generator.respond = calls
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    with client(gateway(upstream=generator.url)) as openai_client:
        found = openai_client.chat.completions.create(model="tiny", messages=MESSAGES, tools=tools)
        assert found.choices[0].message.tool_calls[0].function.name == "look"
        assert found.best_of_n["reason"] == "tool_calls"
        stream = openai_client.chat.completions.create(
            model="tiny", messages=MESSAGES, tools=tools, stream=True
        )
        deltas = [one.choices[0].delta for one in stream]
        assert deltas[0].tool_calls[0].index == 0
    assert generator.requests[0]["tools"] == tools


def test_a_draw_that_is_not_good_enough_is_repeated(gateway: Any, generator: Generator) -> None:
    url = gateway(Choosing(n=2, min_probability=0.99), upstream=generator.url)
    answer = post(url, {"messages": MESSAGES, "seed": 1})
    assert answer["best_of_n"]["n_draws"] == 2
    assert answer["best_of_n"]["n_drawn"] == 4
    assert [one["seed"] for one in generator.requests] == [1, 3]
    own = {"min_probability": 0.01}
    assert post(url, {"messages": MESSAGES, "best_of_n": own})["best_of_n"]["n_draws"] == 1


def test_what_has_come_in_time_is_ranked(gateway: Any, generator: Generator) -> None:
    let_go = threading.Event()

    def hang(_handler: Any, _body: dict, number: int) -> bool:
        if number in (1, 3):
            let_go.wait(HUNG_S)
        return False

    generator.respond = hang
    url = gateway(Choosing(time_budget_s=0.5), upstream=generator.url)
    answer = post(url, {"messages": MESSAGES})
    let_go.set()
    assert answer["best_of_n"]["n_drawn"] == 2


def test_without_rewards_the_first_is_answered_and_marked(
    gateway: Any, generator: Generator, fake: FakeServer
) -> None:
    url = gateway(upstream=generator.url)
    fake.fail_with = (grpc.StatusCode.UNAVAILABLE, "gone")
    answer = post(url, {"messages": MESSAGES})
    assert answer["choices"][0]["message"]["content"] == "short"
    assert answer["choices"][0]["reward"] is None
    assert (answer["best_of_n"]["ranked"], answer["best_of_n"]["reason"]) == (
        False, "UnavailableError"
    )  # fmt: skip
    metrics = httpx.get(f"{url}/metrics").text
    assert 'gpt2_reward_gateway_unranked_total{reason="UnavailableError"} 1.0' in metrics
    own = {"on_reward_failure": "error"}
    refused = httpx.post(
        f"{url}/v1/chat/completions", json={"messages": MESSAGES, "best_of_n": own}
    )
    assert (refused.status_code, refused.json()["error"]["type"]) == (503, "UnavailableError")
    assert refused.headers["retry-after"] == "1"


def test_the_generators_refusals_are_passed_on(gateway: Any, generator: Generator) -> None:
    def busy(handler: Any, _body: dict, _number: int) -> bool:
        send(handler, 429, {"error": {"message": "slow down"}}, {"retry-after": "17"})
        return True

    generator.respond = busy
    with client(gateway(upstream=generator.url)) as openai_client:
        with pytest.raises(openai.RateLimitError, match="slow down") as caught:
            openai_client.chat.completions.create(model="tiny", messages=MESSAGES)
        assert caught.value.response.headers["retry-after"] == "17"


@pytest.mark.parametrize("drawing", ["n", "parallel"])
def test_half_an_answer_is_a_bad_gateway(gateway: Any, generator: Generator, drawing: str) -> None:
    def half(handler: Any, _body: dict, _number: int) -> bool:
        handler.send_response(200)
        handler.send_header("content-length", "1000")
        handler.end_headers()
        handler.wfile.write(b'{"choices": [')
        handler.close_connection = True
        return True

    generator.respond = half
    url = gateway(Choosing(drawing=drawing), upstream=generator.url)
    refused = httpx.post(f"{url}/v1/chat/completions", json={"messages": MESSAGES})
    assert (refused.status_code, refused.json()["error"]["type"]) == (502, "UpstreamUnavailable")


def test_one_that_fails_of_several_is_missed(gateway: Any, generator: Generator) -> None:
    def fail(handler: Any, _body: dict, number: int) -> bool:
        if number == 0:
            send(handler, 500, {"error": {"message": "no"}})
        return number == 0

    generator.respond = fail
    url = gateway(Choosing(drawing="parallel"), upstream=generator.url)
    assert post(url, {"messages": MESSAGES})["best_of_n"]["n_drawn"] == 3


def test_a_hanging_generator_ends_with_the_time(gateway: Any, generator: Generator) -> None:
    let_go = threading.Event()

    def hang(_handler: Any, _body: dict, _number: int) -> bool:
        let_go.wait(HUNG_S)
        return False

    generator.respond = hang
    url = gateway(upstream=generator.url, timeout_s=0.5)
    refused = httpx.post(f"{url}/v1/chat/completions", json={"messages": MESSAGES})
    let_go.set()
    assert refused.status_code == 504


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": MESSAGES, "n": 0}, "n:"),
        ({"messages": MESSAGES, "n": 65}, "at most 64"),
        ({"messages": MESSAGES, "best_of_n": {"m": 3}}, "best_of_n.m"),
        ({"messages": MESSAGES, "best_of_n": {"min_probability": 2}}, "min_probability"),
    ],
)
def test_a_bad_request_says_why(
    gateway: Any, generator: Generator, body: dict[str, Any], named: str
) -> None:
    url = gateway(upstream=generator.url)
    refused = httpx.post(f"{url}/v1/chat/completions", json=body)
    assert refused.status_code == 422
    assert named in refused.json()["error"]["message"]
    assert not generator.requests


def test_tools_answers_are_not_part_of_the_conversation(gateway: Any, generator: Generator) -> None:
    spoken = [*MESSAGES, {"role": "assistant", "content": "Well."}]
    unspoken = [
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]
    url = gateway(upstream=generator.url)
    with_tools = post(url, {"messages": [*spoken[:2], *unspoken, spoken[2]]})
    without = post(url, {"messages": spoken})
    assert with_tools["choices"][0]["reward"] == without["choices"][0]["reward"]


def test_without_a_generator_there_are_no_completions(gateway: Any) -> None:
    answer = httpx.post(f"{gateway()}/v1/chat/completions", json={"messages": MESSAGES})
    assert answer.status_code == 404


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    return json.loads(answer.text)


def test_a_caller_gets_no_cookie_of_another(gateway: Any, generator: Generator) -> None:
    def with_cookie(handler: Any, body: dict, number: int) -> bool:
        send(handler, 200, generator.answer(handler.path, body, number), {"set-cookie": "a=b"})
        return True

    generator.respond = with_cookie
    url = gateway(upstream=generator.url)
    for _ in range(2):
        post(url, {"messages": MESSAGES})
    assert [one.get("cookie") for one in generator.headers] == [None, None]


def test_a_request_that_is_wrong_costs_the_generator_little(
    gateway: Any, generator: Generator
) -> None:
    def refuse(handler: Any, _body: dict, _number: int) -> bool:
        send(handler, 400, {"error": {"message": "temperature: too hot"}})
        return True

    generator.respond = refuse
    url = gateway(upstream=generator.url)
    answer = httpx.post(f"{url}/v1/chat/completions", json={"messages": MESSAGES, "temperature": 9})
    assert (answer.status_code, len(generator.requests)) == (400, 2)
    assert "too hot" in answer.text


def test_a_second_draw_that_fails_leaves_the_first(
    gateway: Any, generator: Generator, fake: FakeServer
) -> None:
    def ends_rewards(_handler: Any, _body: dict, number: int) -> bool:
        if number == 1:
            fake.fail_with = (grpc.StatusCode.UNAVAILABLE, "gone")
        return False

    generator.respond = ends_rewards
    url = gateway(Choosing(min_probability=0.99), upstream=generator.url)
    own = {"on_reward_failure": "error"}
    answer = post(url, {"messages": MESSAGES, "best_of_n": own})
    assert answer["choices"][0]["message"]["content"] == BEST
    assert (answer["best_of_n"]["ranked"], answer["best_of_n"]["n_draws"]) == (True, 2)


def test_a_second_draw_that_hangs_leaves_the_first(gateway: Any, generator: Generator) -> None:
    let_go = threading.Event()

    def hang(_handler: Any, _body: dict, number: int) -> bool:
        return number == 1 and not let_go.wait(HUNG_S)

    generator.respond = hang
    url = gateway(Choosing(min_probability=0.99), upstream=generator.url, timeout_s=3)
    answer = post(url, {"messages": MESSAGES})
    let_go.set()
    assert answer["choices"][0]["message"]["content"] == BEST


@pytest.mark.parametrize(
    "content",
    [
        b'{"choices": [{"message": "text"}]}',
        b'{"choices": [{"message": {"content": "a", "tool_calls": {}}}]}'.replace(
            b"{}}", b'{"a": 1}}'
        ),
        b'{"choices": [{"message": {"content": "a"}, "logprobs": NaN}]}',
        b"[" * 100_000,
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_in_another_form_is_a_bad_gateway(
    gateway: Any, generator: Generator, content: bytes, stream: bool
) -> None:
    def odd(handler: Any, _body: dict, _number: int) -> bool:
        handler.send_response(200)
        handler.send_header("content-length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)
        return True

    generator.respond = odd
    body = {"messages": MESSAGES, "stream": stream}
    url = gateway(upstream=generator.url)
    assert httpx.post(f"{url}/v1/chat/completions", json=body).status_code == 502


@pytest.mark.parametrize("stream", [True, False])
def test_half_a_character_comes_through(gateway: Any, generator: Generator, stream: bool) -> None:
    generator.replies = ["\ud800", "a much longer reply, and whole"]
    body = {"messages": MESSAGES, "stream": stream, "n": 2}
    answer = httpx.post(f"{gateway(upstream=generator.url)}/v1/chat/completions", json=body)
    assert answer.status_code == 200
    assert "\\ud800" in answer.text


@pytest.mark.parametrize("own", [0, False, [], "8"])
@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_options_in_another_form_are_refused(
    gateway: Any, generator: Generator, own: object, path: str
) -> None:
    body = {"messages": MESSAGES, "prompt": "Hi", "best_of": 2, "best_of_n": own}
    answer = httpx.post(f"{gateway(upstream=generator.url)}/v1/{path}", json=body)
    assert answer.status_code == 422


def test_headers_that_are_no_text_are_passed_on(gateway: Any, generator: Generator) -> None:
    headers = {b"authorization": "Bearer café".encode(), b"x-request-id": b"caf\xe9"}
    url = gateway(upstream=generator.url)
    answer = httpx.post(f"{url}/v1/chat/completions", json={"messages": MESSAGES}, headers=headers)
    assert answer.status_code == 200


def test_a_generator_that_is_away_is_a_bad_gateway(gateway: Any) -> None:
    url = gateway(upstream=f"http://127.0.0.1:{free_port()}/v1")
    assert httpx.get(f"{url}/v1/models").status_code == 502
    body = {"messages": MESSAGES}
    assert httpx.post(f"{url}/v1/chat/completions", json=body).status_code == 502


def test_a_refusal_is_not_preferred(gateway: Any, generator: Generator) -> None:
    def refusing(handler: Any, body: dict, number: int) -> bool:
        answer = generator.answer(handler.path, body, number)
        answer["choices"][0]["message"] = {"role": "assistant", "content": None, "refusal": "No."}
        send(handler, 200, answer)
        return True

    generator.respond = refusing
    answer = post(gateway(upstream=generator.url), {"messages": MESSAGES, "n": 4})
    assert answer["choices"][0]["message"]["content"] == BEST
    assert answer["choices"][3]["message"]["refusal"] == "No."
