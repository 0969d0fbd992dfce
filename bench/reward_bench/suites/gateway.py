"""The gateway's own cost: reranking of best-of-8 groups against a server that answers at once.

The command runs as users run it, in one process, against a `FakeServer` in another; callers are
in a third. All share the machine's cores, so processor time per request says more than requests
per second.
"""

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from reward_bench.fake_server import fake_server
from reward_bench.processes import cpu_seconds, resident_mb
from reward_bench.suite import CLIENT, Report, Setting, Suite, option, say
from reward_export.conversations import conversations

N_CANDIDATES, N_GROUPS = 8, 40
START_S = 60.0


@dataclass(frozen=True)
class Options:
    """How many callers."""

    callers: tuple[int, ...] = option((1, 8, 32), "callers at the same time", quick=(2,), kind=int)


def run(setting: Setting, own: Options) -> Report:
    """Measure every number of callers."""
    bodies = [json.dumps(one).encode() for one in groups()]
    report: Report = {}
    with fake_server() as url, gateway(url) as (address, pid):
        asyncio.run(ask(address, bodies, callers=1, seconds=min(setting.seconds, 1.0)))  # warm
        for callers in own.callers:
            before = cpu_seconds([pid])
            times = asyncio.run(ask(address, bodies, callers=callers, seconds=setting.seconds))
            report[f"{callers} callers"] = found = {
                "requests_a_second": len(times) / setting.seconds,
                "processor_ms_a_request": 1e3 * (cpu_seconds([pid]) - before) / len(times),
                "p50_ms": 1e3 * float(np.quantile(times, 0.5)),
                "p99_ms": 1e3 * float(np.quantile(times, 0.99)),
                "rss_mb": resident_mb([pid]),
            }
            say(f"{callers} callers: {found}")
    return report


def groups() -> list[dict[str, object]]:
    """Real conversations, each with replies from others."""
    dialogues = conversations()
    return [
        {
            "query": "\n".join(dialogue.turns[:5]) + "\n",
            "documents": [dialogues[i + 1 + j].turns[5] for j in range(N_CANDIDATES)],
        }
        for i, dialogue in enumerate(dialogues[:N_GROUPS])
    ]


async def ask(address: str, bodies: list[bytes], *, callers: int, seconds: float) -> list[float]:
    """Seconds of each request; every caller asks again once it is answered, for `seconds`."""
    end, times = time.perf_counter() + seconds, list[float]()
    headers = {"content-type": "application/json"}

    async def call(number: int) -> None:
        async with httpx.AsyncClient(timeout=START_S) as client:
            while (start := time.perf_counter()) < end:
                number += 1
                body = bodies[number % len(bodies)]
                answer = await client.post(f"{address}/v1/rerank", content=body, headers=headers)
                if len(answer.json()["results"]) != N_CANDIDATES:
                    raise SystemExit(f"the gateway answered {answer.text}")
                times.append(time.perf_counter() - start)

    await asyncio.gather(*(call(17 * number) for number in range(callers)))
    return times


@contextmanager
def gateway(url: str) -> Iterator[tuple[str, int]]:
    """Run the command. -> its address and process id."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = str(Path(sys.executable).with_name("gpt2-reward"))
    command = [program, "gateway", f"--url={url}", f"--port={port}"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(f"http://127.0.0.1:{port}/readyz")
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            process.terminate()


def _wait_for(address: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            if httpx.get(address).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise SystemExit(f"{address} does not answer")


SUITE = Suite(
    name="gateway",
    about="the gateway's own cost of reranking",
    file="gateway.json",
    measures=(*CLIENT, "gateway/reward_gateway"),
    takes=frozenset({"seconds"}),
    options=Options,
    run=run,
)
