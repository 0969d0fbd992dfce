"""The remote reward protocol of OpenRLHF, on a real uvicorn."""

import asyncio
import socket
import threading
from collections.abc import Iterator

import grpc
import pytest
from last_token import last_token, wanted
from waiting import HUNG_S, eventually

from reward_client import AsyncRewardClient, Connection, OverloadedError, Retry
from reward_client.testing import FakeServer

uvicorn = pytest.importorskip("uvicorn", reason="needs gpt2-reward[http]")
aiohttp = pytest.importorskip("aiohttp", reason="the workers' own client")
httpx = pytest.importorskip("httpx", reason="asks the service")
http = pytest.importorskip("reward_client.rl.http", reason="needs gpt2-reward[http]")


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer(last_token, max_batch_rows=8) as server:
        yield server


@pytest.fixture
def service(fake: FakeServer) -> Iterator[str]:
    """The HTTP service on a real uvicorn. -> its address."""

    def make_client() -> AsyncRewardClient:
        retry = Retry(attempts=1)
        return AsyncRewardClient(
            fake.url, priority="bulk", timeout_s=HUNG_S, connection=Connection(retry=retry)
        )

    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(http.create_app(make_client), log_level="warning")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        assert eventually(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def test_openrlhfs_workers_are_answered(fake: FakeServer, service: str) -> None:
    async def one(session: "aiohttp.ClientSession", text: str) -> dict:
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
    ("body", "status", "kind"),
    [
        (b"no json", 422, "InvalidInputError"),
        (b"[" * 100_000, 422, "InvalidInputError"),
        (b"[]", 422, "InvalidInputError"),
        (b'{"query": "one text"}', 422, "InvalidInputError"),
        (b'{"query": ["a", 1]}', 422, "InvalidInputError"),
        (b'{"query": ["a\\ud800"]}', 422, "InvalidInputError"),
        (b'{"query": ["secret words!"]}', 422, "NonFiniteRewardError"),
    ],
)
def test_a_bad_body_says_why(service: str, body: bytes, status: int, kind: str) -> None:
    answer = httpx.post(f"{service}/get_reward", content=body)
    assert (answer.status_code, answer.json()["error"]) == (status, kind)
    assert "secret" not in answer.text
    assert httpx.post(f"{service}/get_reward", json={"query": []}).json()["rewards"] == []


def test_a_body_without_end_is_not_read_to_its_end(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "MAX_BODY_BYTES", 1000)
    pieces = iter([b"x" * 600] * 4)  # chunked: no length beforehand
    answer = httpx.post(f"{service}/get_reward", content=pieces)
    assert (answer.status_code, answer.json()["error"]) == (413, "HTTPException")
    assert httpx.get(f"{service}/nowhere").json()["message"] == "Not Found"


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
    assert httpx.get(f"{service}/health").json() == {"model_version": 1}
    fake.fail_with = (code, words)
    answer = httpx.post(f"{service}/get_reward", json={"query": ["Hi"]})
    assert (answer.status_code, answer.json()["error"]) == (status, kind)
    assert httpx.get(f"{service}/health").status_code == status
