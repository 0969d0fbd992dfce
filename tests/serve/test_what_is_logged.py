"""What a real server's log says about requests, and what it must not say."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException
from waiting import eventually

from reward_serve.server import TritonServer

N_FAILURES = 500
TEXT = "what nobody else may read"


@pytest.fixture
def client(lookup_server: TritonServer) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(lookup_server.grpc_url) as client:
        yield client


def fail(client: InferenceServerClient) -> str:
    """Look up a value that is not there. -> the error's message"""
    x = InferInput("x", [1, 1], "INT64")
    x.set_data_from_numpy(np.array([[99]], np.int64))
    with pytest.raises(InferenceServerException) as caught:
        client.infer("lookup", [x])
    return caught.value.message()


def test_all_failures_are_counted_with_a_reason_in_few_lines(
    lookup_server: TritonServer, client: InferenceServerClient
) -> None:
    def told() -> list[int]:
        lines = re.findall(
            r"(\d+) requests failed, the last: .*out of data bounds", log_of(lookup_server)
        )
        return [int(number) for number in lines]

    with ThreadPoolExecutor(16) as pool:
        reasons = [*pool.map(lambda _: fail(client), range(N_FAILURES))]
    assert all("out of data bounds" in reason for reason in reasons)
    sent = N_FAILURES

    def all_told() -> bool:
        nonlocal sent
        sent += 1
        fail(client)
        return sum(told()) == sent

    assert eventually(all_told), "failures without a line are counted in the next one"
    assert len(told()) < N_FAILURES


def test_texts_are_not_logged(lookup_server: TritonServer, client: InferenceServerClient) -> None:
    def echo(text: bytes) -> bytes:
        x = InferInput("x", [1, 1], "BYTES")
        x.set_data_from_numpy(np.array([[text]], np.object_))
        return client.infer("echo", [x]).as_numpy("y")[0, 0]

    assert echo(TEXT.encode()) == TEXT.encode()
    with pytest.raises(InferenceServerException):
        echo(TEXT.encode() + b"\xff")
    assert eventually(
        lambda: "requests failed, the last: UnicodeDecodeError" in log_of(lookup_server)
    )
    assert "echo" in log_of(lookup_server)
    assert TEXT not in log_of(lookup_server)


def log_of(server: TritonServer) -> str:
    return Path(server.log).read_text("utf-8", "replace")
