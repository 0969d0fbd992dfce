"""Draws deploy/grafana/dashboard.json as it looks for a real server under load.

    python tools/render_dashboard.py docs/images/dashboard.png

Starts tritonserver with a small random checkpoint and Prometheus (Debian's package), sends
best-of-8 calls from a growing number of tasks, asks Prometheus for the dashboard's own
expressions, and draws the answers. Panels and queries are the dashboard's, the rendering is not
Grafana's.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

from reward_client import AsyncRewardClient, RewardError
from reward_export.conversations import conversations
from reward_export.export import ExportOptions, export
from reward_export.random_checkpoint import random_checkpoint
from reward_serve.server import ServerOptions, TritonServer

ROOT = Path(__file__).parents[1]
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"
PORT = 19_090
TASKS = (1, 4, 16, 64, 600, 4)  # 600 fill the queue, so that some are refused
SECONDS_EACH = 30


def main() -> None:
    """Measure and draw."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repository = publish(folder)
        options = ServerOptions(repository, grpc_port=0, http_port=0, metrics_port=0)
        with TritonServer(options) as server, prometheus(folder, server.metrics_url):
            start = time.time()
            asyncio.run(load(server.grpc_url))
            draw(start, time.time(), Path(sys.argv[1]))


def publish(folder: Path) -> Path:
    """A repository with one version."""
    repository = folder / "repository"
    checkpoint = random_checkpoint(folder / "checkpoint", n_layer=6, n_head=6, n_embd=384)
    export(ExportOptions(str(checkpoint), repository), print)
    return repository


class prometheus:  # noqa: N801  # used like a function
    """Prometheus, scraping one server every second, for the duration of a block."""

    def __init__(self, folder: Path, metrics_url: str) -> None:
        target = urllib.parse.urlsplit(metrics_url).netloc
        config = folder / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 1s}\n"
            "scrape_configs:\n"
            f"  - {{job_name: gpt2-reward, static_configs: [{{targets: ['{target}']}}]}}\n"
        )
        self._command = [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{PORT}",
        ]

    def __enter__(self) -> None:
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)  # noqa: S603
        time.sleep(3)

    def __exit__(self, *_error: object) -> None:
        self._process.terminate()
        self._process.wait()


async def load(url: str) -> None:
    """Best-of-8 calls over real conversations."""
    dialogues = conversations()
    replies = [turn for dialogue in dialogues for turn in dialogue.turns]

    async def worker(client: AsyncRewardClient, number: int, until: float) -> None:
        while time.monotonic() < until:
            number += 1
            context = "\n".join(dialogues[number % len(dialogues)].turns[:6]) + "\n"
            start = 8 * number % (len(replies) - 8)
            try:
                await client.rank(context, replies[start : start + 8])
            except RewardError:
                await asyncio.sleep(0.5)  # refused: that is one of the curves

    async with AsyncRewardClient(url, timeout_s=2.0) as client:
        for n_tasks in TASKS:
            print(f"{n_tasks} tasks", flush=True)
            until = time.monotonic() + SECONDS_EACH
            await asyncio.gather(*(worker(client, 97 * i, until) for i in range(n_tasks)))


def query(expression: str, start: float, end: float) -> list[dict[str, Any]]:
    """Series of a PromQL expression over a period."""
    fields = {"query": expression, "start": start, "end": end, "step": 2}
    url = f"http://127.0.0.1:{PORT}/api/v1/query_range?{urllib.parse.urlencode(fields)}"
    with urllib.request.urlopen(url) as answer:  # our own server
        found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return found


def draw(start: float, end: float, path: Path) -> None:
    """Draw all panels, two per line."""
    mpl.use("Agg")
    dashboard = json.loads(DASHBOARD.read_text())
    panels = dashboard["panels"]
    figure, axes = plt.subplots((len(panels) + 1) // 2, 2, figsize=(12, 9), sharex=True)
    for panel, axis in zip(panels, axes.flat, strict=False):
        for target in panel["targets"]:
            for series in query(target["expr"].replace("$model", ".*"), start + 10, end):
                label = target["legendFormat"]
                for name, value in series["metric"].items():
                    label = label.replace("{{" + name + "}}", value)
                times = [float(at) - start for at, _ in series["values"]]
                axis.plot(times, [float(value) for _, value in series["values"]], label=label)
        axis.set_title(
            f"{panel['title']} [{panel['fieldConfig']['defaults']['unit']}]", fontsize=10
        )
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=7, loc="upper left")
        axis.grid(alpha=0.3)
    tasks = ", ".join(map(str, TASKS))
    figure.suptitle(
        f"{dashboard['title']}: {tasks} callers for {SECONDS_EACH} s each (seconds since the start)"
    )
    figure.tight_layout()
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
