"""OpenTelemetry spans, with the real SDK."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator

import grpc
import pytest

from reward_client import AsyncRewardClient, RejectedError, RewardClient
from reward_client.testing import FakeServer

pytest.importorskip("opentelemetry.sdk", reason="needs opentelemetry-sdk")
from opentelemetry import trace  # now that it is known to be there
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
    InMemorySpanExporter,
)

EXPORTER = InMemorySpanExporter()


@pytest.fixture
def spans() -> Iterator[Callable[[], list[ReadableSpan]]]:
    """The spans that end during the test."""
    if not isinstance(trace.get_tracer_provider(), TracerProvider):  # it can be set only once
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(EXPORTER))
        trace.set_tracer_provider(provider)
    EXPORTER.clear()
    yield lambda: list(EXPORTER.get_finished_spans())
    EXPORTER.clear()


def test_a_call_is_a_trace_that_goes_on_to_the_server(
    fake: FakeServer, client: RewardClient, spans: Callable[[], list[ReadableSpan]]
) -> None:
    client.connect()
    EXPORTER.clear()
    fake.headers.clear()
    client.score([str(number) for number in range(6)])  # two requests of at most 4 rows
    tokenise, *attempts, call = spans()
    assert [span.name for span in (tokenise, *attempts, call)] == [
        "reward_client.tokenise",
        "reward_client.attempt",
        "reward_client.attempt",
        "reward_client.score",
    ]
    assert call.attributes == {"candidates": 6}
    assert call.parent is None
    for span in (tokenise, *attempts):
        assert span.parent.span_id == call.context.span_id
    assert attempts[0].attributes == {"server.address": fake.url, "model.version": 1}
    sent = {f"{span.context.trace_id:032x}-{span.context.span_id:016x}" for span in attempts}
    assert {headers["traceparent"][3:-3] for headers in fake.headers} == sent


def test_a_call_is_below_its_callers_span(
    fake: FakeServer, spans: Callable[[], list[ReadableSpan]]
) -> None:
    async def rank() -> None:
        async with AsyncRewardClient(fake.url) as client:
            await client.rank("a", ["b"])

    with trace.get_tracer("test").start_as_current_span("mine") as mine:
        with RewardClient(fake.url) as client:
            client.rank("a", ["b"])
        asyncio.run(rank())
    parents = [span.parent.span_id for span in spans() if span.name == "reward_client.rank"]
    assert parents == [mine.context.span_id] * 2


def test_a_failure_is_seen_and_says_no_text(
    fake: FakeServer, client: RewardClient, spans: Callable[[], list[ReadableSpan]]
) -> None:
    client.connect()
    EXPORTER.clear()
    fake.fail_with = (grpc.StatusCode.INVALID_ARGUMENT, "no")
    with pytest.raises(RejectedError):
        client.score(["secret words", "other words"])
    tokenise, attempt, call = spans()
    assert tokenise.status.is_ok
    for span in (attempt, call):
        assert span.status.status_code is trace.StatusCode.ERROR
        assert span.status.description == "RejectedError"
        assert "words" not in span.to_json()


def test_without_opentelemetry_nothing_is_missed() -> None:
    code = """
import sys
class Absent:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from reward_client import RewardClient, tracing
from reward_client.testing import FakeServer
assert not tracing.HAS_OPENTELEMETRY
with FakeServer(lambda ids: ids[:, 0]) as fake, RewardClient(fake.url) as client:
    assert client.score(["Hi"]).rewards == [17250]
    assert "traceparent" not in fake.headers[-1]
"""
    subprocess.run([sys.executable, "-c", code], check=True)
