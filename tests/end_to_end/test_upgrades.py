"""A version that fails to load, however it fails, leaves the one before it serving."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from running import gated
from waiting import eventually

from reward_client import Connection, Retry, RewardClient, ServerError
from reward_contract import MODEL_NAME
from reward_contract.facts import MANIFEST_NAME
from reward_serve.control import Control
from reward_serve.model_process import Child, children

TEXTS = ["Hi", "How are you?", "I am a fish."]
COMMAND = Path(sys.executable).with_name("gpt2-reward")
ONCE = Connection(retry=Retry(attempts=1))
PATIENT = Connection(retry=Retry(attempts=None))


@dataclass
class Running:
    """`gpt2-reward serve --poll`, and what it prints."""

    process: subprocess.Popen
    printed: Path
    models: Path

    def told(self) -> str:
        return self.printed.read_text()

    def address(self, service: str) -> str:
        return re.search(rf"^  {service} +(\S+)", self.told(), re.MULTILINE)[1]

    def health(self, path: str) -> tuple[int, str]:
        url = re.search(r"health: (\S+)/ready", self.told())[1]
        try:
            with urllib.request.urlopen(f"{url}/{path}") as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def triton(self) -> int:
        (pid,) = children(self.process.pid)
        return pid

    def model_processes(self) -> dict[int, Child]:
        return children(self.triton())

    def log(self) -> str:
        return Path(self.address("log")).read_text()


@pytest.fixture
def running(repository: Path, tmp_path: Path) -> Iterator[Running]:
    with serving(repository, tmp_path, "--load-timeout=60") as found:
        yield found


@contextlib.contextmanager
def serving(repository: Path, folder: Path, *options: str) -> Iterator[Running]:
    shutil.copytree(repository, folder / "repository")
    models = folder / "repository" / MODEL_NAME
    config = models / "config.pbtxt"
    # a warm-up that lasts long enough for a test to interfere
    config.write_text(
        config.read_text().replace('"as much as four full rows"', '"long" count: 300')
    )
    printed = folder / "printed"
    ports = [f"--{service}-port=0" for service in ("grpc", "http", "metrics", "health")]
    words = [COMMAND, "serve", f"--repository={models.parent}", "--poll=1", "--heartbeat=1", *ports]
    env = {**os.environ, "TMPDIR": str(folder)}
    with (
        printed.open("wb") as file,
        subprocess.Popen(
            [*words, *options, "--", "--log-verbose=1"], stderr=file, env=env
        ) as process,
    ):
        found = Running(process, printed, models)
        try:
            assert eventually(lambda: "  log" in found.told())
            yield found
        finally:
            process.terminate()


def publish(models: Path, number: int) -> None:
    """Publish a copy of version 1 in one rename."""
    shutil.copytree(models / "1", models / ".next")
    (models / ".next").rename(models / str(number))


@dataclass
class Calls:
    """What a caller without retries has received so far."""

    versions: list[int] = field(default_factory=list)
    errors: list[ServerError] = field(default_factory=list)


@contextlib.contextmanager
def calling(url: str) -> Iterator[Calls]:
    calls, stop = Calls(), threading.Event()

    def call(client: RewardClient) -> None:
        wanted = None
        while not stop.is_set():
            try:
                scores = client.score(TEXTS)
            except ServerError as error:
                calls.errors.append(error)
                continue
            wanted = scores.rewards if wanted is None else wanted
            np.testing.assert_allclose(scores.rewards, wanted, rtol=0, atol=1e-5)
            calls.versions.append(scores.model_version)

    with RewardClient(url, connection=ONCE, timeout_s=20) as client:
        thread = threading.Thread(target=call, args=(client,))
        thread.start()
        try:
            yield calls
        finally:
            stop.set()
            thread.join()


def newcomer(running: Running, old: set[int], is_there: Callable[[Child], bool]) -> int:
    """Wait until the new version's process satisfies `is_there`. -> its pid."""
    found: list[int] = []

    def look() -> bool:
        now = running.model_processes()
        found[:] = [pid for pid, child in now.items() if pid not in old and is_there(child)]
        return bool(found)

    assert eventually(look, within_s=30)
    return found[0]


@dataclass
class Outcome:
    """What has become of version 2, and of the calls meanwhile."""

    running: Running
    calls: Calls

    def is_decided(self) -> bool:
        """Whether version 2 is served after all, was given up, or the server was started again."""
        told = self.running.told()
        lines = ("version 2 is not served", "version 2 could not be loaded", "starting again")
        return 2 in self.calls.versions or any(line in told for line in lines)

    def check(self) -> None:
        """Check that calls are answered, and that none was lost unless Triton itself ended."""
        n_calls = len(self.calls.versions)
        assert eventually(lambda: len(self.calls.versions) > n_calls + 20)
        assert self.calls.errors == [] or "starting again" in self.running.told()
        assert eventually(lambda: self.running.health("ready") == (200, "ready\n"))


def stages() -> dict[str, Callable[[Child], bool]]:
    return {
        "before the backend begins": lambda child: child.serves is None,
        "opens the graph": lambda child: child.serves is not None,
        "warms up": lambda child: child.serves is not None,
    }


@pytest.mark.parametrize("stage", stages())
def test_a_process_killed_while_it_loads_leaves_a_version_serving(
    running: Running, stage: str
) -> None:
    """Triton 2.51 starts it again, gives the version up, waits forever, or ends itself."""
    old, n_warm = {*running.model_processes()}, running.log().count("warmup sample")
    with calling(running.address("gRPC")) as calls:
        assert eventually(lambda: len(calls.versions) > 3)
        publish(running.models, 2)
        pid = newcomer(running, old, stages()[stage])
        if stage == "warms up":
            assert eventually(lambda: running.log().count("warmup sample") > n_warm)
        os.kill(pid, signal.SIGKILL)
        outcome = Outcome(running, calls)
        assert eventually(outcome.is_decided)
        outcome.check()
    publish(running.models, 3)  # whatever Triton waits for, it can be told to load another
    with RewardClient(running.address("gRPC"), connection=PATIENT) as client:
        assert eventually(lambda: client.score(TEXTS).model_version == 3)


HANGS = """
import signal
from pathlib import Path


class TritonPythonModel:
    def initialize(self, args):
        Path("/proc/self/comm").write_text(f"v{args['model_version']} {args['model_name']}"[:15])
        signal.pause()
"""


def served_by(running: Running) -> set[tuple[str, int] | None]:
    living = [child for child in running.model_processes().values() if not child.is_dead]
    return {child.serves for child in living}


def test_a_version_that_never_finishes_loading_is_given_up(
    repository: Path, tmp_path: Path
) -> None:
    gate = gated(repository, tmp_path / "gated")  # its versions are Python files
    with serving(gate.repository, tmp_path, "--load-timeout=1") as running:
        with calling(running.address("gRPC")) as calls:
            assert eventually(lambda: len(calls.versions) > 3)
            shutil.copytree(running.models / "1", running.models / ".next")
            (running.models / ".next" / "model.py").write_text(HANGS)
            (running.models / ".next").rename(running.models / "2")
            told = "gpt2_reward version 2 is not served: it was still loading after 1 s"
            assert eventually(lambda: told in running.told())
            Outcome(running, calls).check()
        assert {*calls.versions} == {1}
        assert eventually(lambda: served_by(running) == {("gpt2_reward", 1)})


def test_damaged_and_half_copied_versions_are_not_shown_to_triton(running: Running) -> None:
    with calling(running.address("gRPC")) as calls:
        shutil.copytree(running.models / "1", running.models / ".half")
        whole = (running.models / "1" / "model.onnx.data").read_bytes()
        (running.models / ".half" / "model.onnx.data").write_bytes(whole[: len(whole) // 2])
        (running.models / ".half").rename(running.models / "2")
        told = "gpt2_reward version 2 is not served: model.onnx.data has sha256"
        assert eventually(lambda: told in running.told())
        (running.models / "2" / "model.onnx.data").write_bytes(whole)
        assert eventually(lambda: 2 in calls.versions, within_s=60)
    assert calls.errors == []


def test_a_version_that_triton_cannot_load_leaves_the_old_one(running: Running) -> None:
    with calling(running.address("gRPC")) as calls:
        shutil.copytree(running.models / "1", running.models / ".next")
        (running.models / ".next" / "model.onnx").write_bytes(b"not a graph")
        (running.models / ".next" / MANIFEST_NAME).unlink()
        (running.models / ".next").rename(running.models / "2")
        assert eventually(lambda: "gpt2_reward version 2 could not be loaded" in running.told())
        n_calls = len(calls.versions)
        assert eventually(lambda: len(calls.versions) > n_calls + 20)
        os.kill(running.triton(), signal.SIGKILL)  # a starting server loads only the newest
        assert eventually(lambda: running.told().count("ready: serving") == 2, within_s=90)
        n_calls = len(calls.versions)
        assert eventually(lambda: len(calls.versions) > n_calls + 5)
    assert {*calls.versions} == {1}


@pytest.mark.parametrize("signum", [signal.SIGSTOP, signal.SIGKILL])
def test_a_model_process_that_hangs_or_dies_is_noticed_and_replaced(
    running: Running, signum: signal.Signals
) -> None:
    pid = next(iter(running.model_processes()))
    os.kill(pid, signum)
    assert eventually(lambda: running.health("ready")[0] == 503)
    reason = {signal.SIGSTOP: "heartbeat", signal.SIGKILL: "model_process_died"}[signum]
    restarted = f'restarts_total{{reason="{reason}"}} 1'
    # the other instance may answer some heartbeats
    assert eventually(lambda: restarted in running.health("metrics")[1], within_s=120)
    assert eventually(lambda: running.health("ready") == (200, "ready\n"), within_s=60)
    assert running.health("live") == (200, "live\n")
    with RewardClient(running.address("gRPC")) as client:
        assert client.score(TEXTS).model_version == 1


def test_a_server_that_answers_wrongly_is_not_ready(running: Running) -> None:
    manifest = running.models / "1" / MANIFEST_NAME
    text = manifest.read_text()
    manifest.write_text(re.sub(r'("rewards": \[\s*)(-?[\d.e-]+)', r"\g<1>123.0", text))
    assert eventually(
        lambda: "golden row 0 of gpt2_reward version 1 got" in running.health("ready")[1]
    )
    assert 'heartbeat_failures_total{reason="wrong"}' in running.health("metrics")[1]


def test_the_index_of_the_server_is_the_launchers_alone(running: Running) -> None:
    with pytest.raises(Exception, match="restricted") as caught:
        Control(running.address("HTTP")).state(MODEL_NAME, 1)
    assert caught.value.status == 403
