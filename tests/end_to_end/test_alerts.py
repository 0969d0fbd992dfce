"""The alert for a full queue, on the metrics of a real server whose queue is full."""

import asyncio
import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from promtool import promtool
from running import Gate, gated, pending
from waiting import HUNG_S, eventually

from reward_client import AsyncRewardClient, Connection, OverloadedError, Retry, RewardClient
from reward_contract import MODEL_NAME
from reward_serve.server import ServerOptions, TritonServer

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "rules.yml"
ALERT = "RewardQueueFull"
ONCE = Connection(retry=Retry(attempts=1))


@pytest.fixture
def gate(repository: Path, tmp_path: Path) -> Gate:
    """The gate of a model with the queue bounds that are shipped."""
    return gated(repository, tmp_path / "repository")


@pytest.fixture
def server(gate: Gate) -> Iterator[TritonServer]:
    options = ServerOptions(gate.repository, grpc_port=0, http_port=0, metrics_port=0)
    with TritonServer(options) as server:
        yield server


def bound_of(gate: Gate) -> int:
    text = (gate.repository / MODEL_NAME / "config.pbtxt").read_text()
    (bound,) = {int(number) for number in re.findall(r"max_queue_size: (\d+)", text)}
    return bound


async def fill(server: TritonServer, gate: Gate, n_calls: int) -> str:
    """Ask until a call is refused because the queue is full. -> the metrics page at that time."""
    async with AsyncRewardClient(server.grpc_url, connection=ONCE, timeout_s=HUNG_S) as client:
        with gate.closed():
            tasks = [asyncio.ensure_future(client.score(["Hi"])) for _ in range(n_calls)]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            refusal = next(iter(done)).exception()
            assert isinstance(refusal, OverloadedError), refusal
            assert await asyncio.to_thread(eventually, lambda: pending(server) >= bound_of(gate))
            page = await asyncio.to_thread(page_of, server)
        await asyncio.gather(*tasks, return_exceptions=True)
    return page


def page_of(server: TritonServer) -> str:
    return urllib.request.urlopen(server.metrics_url).read().decode()


def alert_is(firing: bool, page: str, folder: Path) -> None:
    """Check whether the alert fires when Prometheus has scraped the page for five minutes."""
    samples = re.findall(r"^(nv_\w+)\{(.*)\} (\S+)$", page, re.MULTILINE)
    assert samples
    series = [
        {
            "series": f'{name}{{job="gpt2-reward", instance="a", {labels}}}',
            "values": f"{float(value):.0f}x40",
        }
        for name, labels, value in samples
        if value != "Nan" and not name.endswith("_summary_us")
    ]
    labels = {"job": "gpt2-reward", "instance": "a", "model": MODEL_NAME, "severity": "ticket"}
    waiting = sum(float(v) for n, _, v in samples if n == "nv_inference_pending_request_count")
    summary = f"{waiting:.0f} requests wait at a: its queue is full or nearly full"
    expected = [{"exp_labels": labels, "exp_annotations": {"summary": summary}}]
    test = {
        "interval": "10s",
        "input_series": series,
        "alert_rule_test": [
            {"eval_time": "5m", "alertname": ALERT, "exp_alerts": expected if firing else []}
        ],
    }
    file = folder / "rules_test.json"  # JSON is YAML, too
    file.write_text(json.dumps({"rule_files": [str(RULES)], "tests": [test]}))
    promtool("test", "rules", file)


def test_it_fires_when_a_real_queue_is_full_and_not_before(
    server: TritonServer, gate: Gate, tmp_path: Path
) -> None:
    with RewardClient(server.grpc_url) as client:
        client.score(["Hi"])
    alert_is(firing=False, page=page_of(server), folder=tmp_path)
    page = asyncio.run(fill(server, gate, n_calls=2 * bound_of(gate)))
    alert_is(firing=True, page=page, folder=tmp_path)


def test_its_number_is_nine_tenths_of_the_shipped_bound(gate: Gate) -> None:
    (expression,) = re.findall(rf"alert: {ALERT}\n(.*?)for:", RULES.read_text(), re.DOTALL)
    assert re.findall(r">= (\d+)", expression) == [str(int(0.9 * bound_of(gate)))]


def test_percentiles_tell_model_and_version(server: TritonServer) -> None:
    with RewardClient(server.grpc_url) as client:
        client.score(["Hi"])
    name = f'nv_inference_request_summary_us{{model="{MODEL_NAME}",version="1",quantile="0.99"}}'
    assert eventually(lambda: re.search(re.escape(name) + r" [\d.]+", page_of(server)) is not None)
