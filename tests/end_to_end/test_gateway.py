"""Best of N as its users run it: the command, a real generator, a real Triton, OpenAI's client."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from network import answers, free_port
from waiting import eventually

from reward_client import RewardClient
from reward_serve.server import TritonServer

MESSAGES = [{"role": "user", "content": "Hello there, how are you?"}]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def gateway(generator: tuple[str, str], server: TritonServer) -> Iterator[str]:
    """Run `gpt2-reward gateway`. -> its URL."""
    port = free_port()
    options = ["--url", server.grpc_url, "--chat-format", "lines", "--upstream", generator[0]]
    command = [BIN / "gpt2-reward", "gateway", "--port", str(port), "--log-format=json", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert eventually(lambda: answers(f"http://127.0.0.1:{port}/readyz"))
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            log = process.communicate()[1]
            assert process.returncode == -signal.SIGTERM
            assert "Finished server process" in log, "it drains before it ends"
            assert '"route": "/v1/chat/completions"' in log
            assert "Hello there" not in log


def test_the_best_of_a_real_generators_replies(
    gateway: str, generator: tuple[str, str], server: TritonServer
) -> None:
    wanted = {
        "model": generator[1], "messages": MESSAGES, "max_tokens": 8, "temperature": 1.5, "n": 4
    }  # fmt: skip
    with openai.OpenAI(base_url=f"{gateway}/v1", api_key="none") as client:
        found = client.chat.completions.create(**wanted)
    replies = [one.message.content for one in found.choices]
    assert found.best_of_n["ranked"]
    assert found.best_of_n["n_drawn"] == 4
    assert len(set(replies)) > 1, "sampled, not greedy"
    with RewardClient(server.grpc_url, chat_format="lines") as client:
        ranking = client.rank(MESSAGES, replies)
    assert [one.index for one in ranking] == [0, 1, 2, 3], "they came best first"
    assert [one.reward for one in found.choices] == pytest.approx(
        [one.reward for one in ranking], abs=1e-5
    )


def test_the_best_is_streamed(gateway: str, generator: tuple[str, str]) -> None:
    with openai.OpenAI(base_url=f"{gateway}/v1", api_key="none") as client:
        stream = client.chat.completions.create(
            model=generator[1],
            messages=MESSAGES,
            max_tokens=8,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
    assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
    assert chunks[-1].usage.completion_tokens > 0
