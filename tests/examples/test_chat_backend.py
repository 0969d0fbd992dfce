"""The chat backend of examples/, in uvicorn, with a real generator and a real reward server."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from generator import Generator
from network import answers, free_port
from waiting import HUNG_S, eventually

from reward_client import RewardClient
from reward_client.testing import FakeServer
from reward_export.conversations import conversations
from reward_text import FORMATS, Usage

EXAMPLES = Path(__file__).parents[2] / "examples"
DIALOGUE = conversations()[0]
MESSAGES = [
    {"role": ("user", "assistant")[place % 2], "content": turn}
    for place, turn in enumerate(DIALOGUE.turns[:3])
]


@contextmanager
def backend(generator_url: str, model: str, reward_url: str, **settings: str) -> Iterator[str]:
    """Start the example as its first lines say. -> its URL"""
    port = free_port()
    command = ["-m", "uvicorn", f"--app-dir={EXAMPLES}", "chat_backend:app", f"--port={port}"]
    told = {"GENERATOR_URL": generator_url, "GENERATOR_MODEL": model, "REWARD_URL": reward_url}
    environment = {**os.environ, "REWARD_TIMEOUT_S": str(HUNG_S), **told, **settings}
    with subprocess.Popen([sys.executable, *command], env=environment) as process:
        try:
            assert eventually(lambda: answers(f"http://127.0.0.1:{port}/openapi.json"))
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def ask(url: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{url}/chat", json={"messages": MESSAGES, **body}, timeout=HUNG_S)


def test_a_real_generators_reply_is_answered_with_its_probability(
    generator: tuple[str, str], trained: str
) -> None:
    with backend(*generator, trained) as url:
        found = ask(url, max_tokens=8).json()
        assert ask(url, messages=[]).status_code == 422
    assert found["content"]
    assert found["n_candidates"] == 4
    with RewardClient(trained) as client:
        (again,) = client.rank(MESSAGES, [found["content"]])
    assert found["probability"] == pytest.approx(again.probability, abs=1e-4)


def test_the_best_of_the_replies_is_answered(trained: str) -> None:
    with RewardClient(trained) as client:
        ranking = client.rank(MESSAGES, [one.turns[3] for one in conversations()[:6]])
    with Generator() as generator:
        generator.replies = [one.text for one in reversed(ranking)]  # the best is drawn last
        with backend(generator.url, "tiny", trained, N_CANDIDATES="6") as url:
            found = ask(url).json()
    assert (found["content"], found["n_candidates"]) == (ranking.best.text, 6)
    assert found["probability"] == pytest.approx(ranking.best.probability, abs=1e-4)


def test_without_a_reward_the_first_reply_is_answered() -> None:
    usage = Usage(FORMATS["lines"])
    with (
        Generator() as generator,
        FakeServer(lambda ids: (ids != 50256).sum(axis=1), usage=usage) as rewards,
        backend(generator.url, "tiny", rewards.url, N_CANDIDATES="1", REWARD_TIMEOUT_S="5") as url,
    ):
        assert ask(url).json()["probability"] is not None
        rewards.fail_with = (grpc.StatusCode.UNAVAILABLE, "gone")
        found = ask(url).json()
    assert found == {"content": "a little longer", "probability": None, "n_candidates": 1}


def test_a_reward_server_may_come_after_the_backend() -> None:
    port = free_port()
    with (
        Generator() as generator,
        backend(generator.url, "tiny", f"127.0.0.1:{port}", REWARD_TIMEOUT_S="5") as url,
    ):
        assert ask(url).json()["probability"] is None
        usage = Usage(FORMATS["lines"])
        with FakeServer(lambda ids: (ids != 50256).sum(axis=1), usage=usage, port=port):
            assert eventually(lambda: ask(url).json()["probability"] is not None)


def test_a_generator_that_is_away_is_said_to_be(trained: str) -> None:
    with backend(f"http://127.0.0.1:{free_port()}/v1", "tiny", trained) as url:
        answer = ask(url)
        assert ask(url, max_tokens=10**9).status_code == 422
    assert (answer.status_code, answer.json()) == (502, {"detail": "the generator does not answer"})


def test_a_model_without_a_format_does_not_cost_the_reply() -> None:
    with (
        Generator() as generator,
        FakeServer(lambda ids: (ids != 50256).sum(axis=1)) as rewards,
        backend(generator.url, "tiny", rewards.url) as url,
    ):
        found = ask(url).json()
    assert (found["content"] != "", found["probability"]) == (True, None)
