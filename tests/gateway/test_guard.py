"""What is done for every request: keys, limits, callers that leave, health, metrics, logs."""

import json
import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from generator import Generator
from waiting import HUNG_S, eventually

from reward_client.testing import FakeServer
from reward_contract.facts import parameter_of
from reward_gateway import rerank
from reward_gateway.logs import Json, Text

RERANK = {"query": "Hi", "documents": ["a", "b"]}


def test_a_key_is_asked_for(gateway: Any) -> None:
    url = gateway(api_keys=frozenset({"first", "sécond"}))
    refused = httpx.post(f"{url}/v1/rerank", json=RERANK)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    for key, status in [("first", 200), ("sécond", 200), ("third", 401), ("firs", 401)]:
        headers = {"authorization": f"Bearer {key}".encode()}
        assert httpx.post(f"{url}/v1/rerank", json=RERANK, headers=headers).status_code == status
    assert httpx.get(f"{url}/healthz").status_code == 200
    assert httpx.get(f"{url}/metrics").status_code == 200


def test_the_gateways_keys_are_not_shown_to_the_generator(
    gateway: Any, generator: Generator
) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}]}
    mine = {"authorization": "Bearer mine"}
    for key, shown in [(None, None), ("theirs", "Bearer theirs")]:
        url = gateway(api_keys=frozenset({"mine"}), upstream=generator.url, upstream_key=key)
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=mine)
        assert answer.status_code == 200
        assert generator.headers[-1].get("authorization") == shown


def test_a_body_is_bounded_whether_its_length_is_said_or_not(gateway: Any) -> None:
    url = gateway(max_body_bytes=1000)
    said = httpx.post(f"{url}/v1/rerank", content=b"x" * 1001)
    pieces = iter([b"x" * 600] * 4)  # chunked: no length beforehand
    unsaid = httpx.post(f"{url}/get_reward", content=pieces)
    assert (said.status_code, unsaid.status_code) == (413, 413)
    assert "1000 bytes" in said.json()["message"]


def test_too_many_requests_at_once_are_refused(gateway: Any, fake: FakeServer) -> None:
    held, let_go = threading.Event(), threading.Event()

    def rewards(ids: np.ndarray) -> np.ndarray:
        held.set()
        let_go.wait(HUNG_S)
        return ids[:, 0]

    fake._rewards = rewards
    url = gateway(max_requests=1)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(httpx.post, f"{url}/v1/rerank", json=RERANK, timeout=120)
        assert held.wait(120)
        refused = httpx.post(f"{url}/v1/rerank", json=RERANK)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert httpx.get(f"{url}/healthz").status_code == 200
        let_go.set()
        assert first.result().status_code == 200
    assert httpx.post(f"{url}/v1/rerank", json=RERANK).status_code == 200


def test_the_work_of_a_caller_who_goes_away_is_cancelled(gateway: Any, fake: FakeServer) -> None:
    held, let_go = threading.Event(), threading.Event()

    def rewards(ids: np.ndarray) -> np.ndarray:
        held.set()
        let_go.wait(HUNG_S)
        return ids[:, 0]

    url = gateway()
    httpx.post(f"{url}/v1/rerank", json=RERANK)  # the server is known now
    fake._rewards = rewards
    body = json.dumps(RERANK).encode()
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as caller:
        head = "POST /v1/rerank HTTP/1.1\r\nhost: g\r\ncontent-type: application/json\r\n"
        head += f"content-length: {len(body)}\r\n\r\n"
        caller.sendall(head.encode() + body)
        assert held.wait(120)
    in_flight = "gpt2_reward_gateway_in_flight 0.0"
    assert eventually(lambda: in_flight in httpx.get(f"{url}/metrics").text)
    let_go.set()
    cancelled = 'outcome="Cancelled",route="/v1/rerank"'
    assert eventually(lambda: cancelled in httpx.get(f"{url}/metrics").text)


def test_ready_is_who_has_a_model_that_answers(gateway: Any, fake: FakeServer) -> None:
    url = gateway()
    assert httpx.get(f"{url}/readyz").json() == {"status": "ok", "model_version": 1}
    fake.fail_with = (grpc.StatusCode.UNAVAILABLE, "gone")
    assert eventually(lambda: httpx.get(f"{url}/readyz").status_code == 503)
    assert httpx.get(f"{url}/healthz").status_code == 200


def test_requests_are_counted_by_route_and_outcome(gateway: Any, generator: Generator) -> None:
    url = gateway(upstream=generator.url)
    httpx.post(f"{url}/v1/rerank", json=RERANK)
    httpx.post(f"{url}/v1/rerank", json={"query": "q"})
    httpx.post(f"{url}/no/such/{time.time()}")
    body = {"messages": [{"role": "user", "content": "Hi"}]}
    httpx.post(f"{url}/v1/chat/completions", json=body)
    prefix = "gpt2_reward_gateway_"
    for wanted in (
        'requests_total{outcome="ok",route="/v1/rerank"} 1.0',
        'requests_total{outcome="InvalidInputError",route="/v1/rerank"} 1.0',
        'requests_total{outcome="HTTPException",route="none"} 1.0',
        'chosen_total{which="another"} 1.0',
        "generation_seconds_count 1.0",
        "ranking_seconds_count 1.0",
        "candidates_sum 3.0",
        "reward_gain_count 1.0",
    ):
        line = prefix + wanted  # a request is counted once its answer is out
        assert eventually(lambda line=line: line in httpx.get(f"{url}/metrics").text.splitlines())


def test_pages_of_other_origins_may_ask_only_if_told(gateway: Any) -> None:
    asked = {"origin": "https://chat.example", "access-control-request-method": "POST"}
    closed, opened = gateway(), gateway(cors_origins=("https://chat.example",))
    assert (
        "access-control-allow-origin"
        not in httpx.options(f"{closed}/v1/rerank", headers=asked).headers
    )
    allowed = httpx.options(f"{opened}/v1/rerank", headers=asked)
    assert allowed.headers["access-control-allow-origin"] == "https://chat.example"


def test_logs_tell_of_requests_and_never_their_text(
    gateway: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="reward_gateway")
    url = gateway()
    body = b'{"query": "secret", "documents": ["secret \\ud800"]}'  # a lone surrogate
    httpx.post(f"{url}/v1/rerank", content=body, headers={"content-type": "application/json"})
    httpx.post(f"{url}/v1/rerank", json={"query": "secret", "documents": ["secret"]})
    told: list[logging.LogRecord] = []  # a request is logged once its answer is out

    def both() -> bool:
        told[:] = [one for one in caplog.records if one.message == "request"]
        return len(told) == 2

    assert eventually(both)
    first, second = told
    assert json.loads(Json().format(second))["status"] == 200
    assert "outcome=InvalidInputError" in Text().format(first)
    assert "secret" not in caplog.text + Json().format(first) + Text().format(second)


def test_the_api_describes_itself(gateway: Any) -> None:
    described = httpx.get(f"{gateway()}/openapi.json").json()
    assert {"/v1/rerank", "/v2/rerank", "/rerank", "/score", "/classify"} <= described[
        "paths"
    ].keys()


def test_callers_whose_bodies_do_not_come_keep_nobody_out(gateway: Any) -> None:
    url = gateway(max_requests=1)
    address = ("127.0.0.1", int(url.rpartition(":")[2]))
    head = b"POST /v1/rerank HTTP/1.1\r\nhost: g\r\ncontent-length: 50\r\n\r\n{"
    with socket.create_connection(address) as one, socket.create_connection(address) as other:
        one.sendall(head)
        other.sendall(head)
        assert httpx.post(f"{url}/v1/rerank", json=RERANK).status_code == 200


def test_a_body_that_does_not_come_is_given_up(gateway: Any) -> None:
    url = gateway(timeout_s=0.3)
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as caller:
        caller.sendall(b"POST /v1/rerank HTTP/1.1\r\nhost: g\r\ncontent-length: 50\r\n\r\n{")
        assert caller.recv(1000).startswith(b"HTTP/1.1 408")


def test_a_failure_of_the_gateway_is_not_counted_as_success(
    gateway: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rerank, "model_name", lambda *_: 1 / 0)
    url = gateway()
    answer = httpx.post(f"{url}/v1/rerank", json=RERANK)
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "InternalError")
    line = 'gpt2_reward_gateway_requests_total{outcome="InternalError",route="/v1/rerank"} 1.0'
    assert eventually(lambda: line in httpx.get(f"{url}/metrics").text)


def test_a_million_documents_are_refused(gateway: Any) -> None:
    body = {"query": "Hi", "documents": [""] * 1_000_000}
    assert httpx.post(f"{gateway()}/v1/rerank", json=body).status_code == 422


def test_being_asked_often_whether_it_is_ready_costs_little(gateway: Any, fake: FakeServer) -> None:
    url = gateway()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(httpx.get, [f"{url}/readyz"] * 40))
    assert {one.status_code for one in answers} == {200}
    assert len(fake.requests) < 40


def test_a_model_that_answers_wrongly_is_not_ready(gateway: Any, fake: FakeServer) -> None:
    text = fake.config.parameters[parameter_of(1)].string_value
    golden = {"rows": [[1, 2], []], "rewards": [1.0, 0.25], "tolerance": 0.01}
    facts = json.dumps({**json.loads(text), "golden": golden})
    fake.config.parameters[parameter_of(1)].string_value = facts
    answer = httpx.get(f"{gateway()}/readyz")
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "WrongRewardError")
    assert "0.0000, but PyTorch gave it 0.2500" in answer.json()["message"]
