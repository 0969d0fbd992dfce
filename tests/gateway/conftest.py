"""A gateway on a real uvicorn, with a reward server and a generator that do as they are told."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import uvicorn
from generator import Generator
from waiting import HUNG_S, eventually

from reward_client import AsyncRewardClient, Connection, Retry
from reward_client.testing import FakeServer
from reward_contract.facts import parameter_of
from reward_gateway.app import create_app
from reward_gateway.settings import Choosing, Settings
from reward_text import FORMATS, Usage

Gateway = Callable[..., str]


def number_of_tokens(ids: np.ndarray) -> np.ndarray:
    """The longer, the better; in the range in which probabilities differ."""
    return (ids != 50256).sum(axis=1) / 100


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    """A reward server whose model reads conversations line by line."""
    with FakeServer(number_of_tokens, max_batch_rows=64) as server:
        usage = Usage(FORMATS["lines"]).as_json()
        facts = json.dumps({**usage, "sha256": {"model.onnx": "0" * 64}})
        server.config.parameters[parameter_of(1)].string_value = facts
        yield server


@contextlib.contextmanager
def served(app: Any) -> Iterator[str]:
    """An application on a real uvicorn. -> its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        assert eventually(lambda: server.started)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def gateway(fake: FakeServer) -> Iterator[Gateway]:
    """Starts gateways with the settings given. -> their addresses."""
    with ExitStack() as stack:

        def start(
            choosing: Choosing | None = None, chat_format: str | None = None, **settings: Any
        ) -> str:
            def make_client() -> AsyncRewardClient:
                connection = Connection(retry=Retry(attempts=1))
                return AsyncRewardClient(
                    fake.url, timeout_s=HUNG_S, connection=connection, chat_format=chat_format
                )

            settings = {"timeout_s": HUNG_S, **settings}
            told = Settings(choosing=choosing or Choosing(), **settings)
            return stack.enter_context(served(create_app(make_client, told)))

        yield start


@pytest.fixture
def generator() -> Iterator[Generator]:
    with Generator() as one:
        yield one
