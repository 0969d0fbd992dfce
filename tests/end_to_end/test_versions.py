"""Publishing and rolling back while callers score, on a server that polls its repository."""

import contextlib
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
from lookup import add_model
from onnx import helper, numpy_helper
from waiting import eventually

from reward_client import Connection, Retry, RewardClient, Scores
from reward_client.cli import main
from reward_contract import MODEL_NAME, REWARD
from reward_contract.facts import MANIFEST_NAME
from reward_export.repository import ModelFolder
from reward_serve.commands.serve import polling
from reward_serve.errors import StartError
from reward_serve.server import ServerOptions, TritonServer

TEXTS = ["Hi", "How are you?", "I am a fish."]
N_CALLERS = 4


def options(repository: Path) -> ServerOptions:
    return ServerOptions(repository, "127.0.0.1", 0, 0, 0, triton_options=polling(1))


@pytest.fixture
def models(repository: Path, tmp_path: Path) -> Path:
    """The model's folder in a repository of the test's own, with version 1."""
    shutil.copytree(repository, tmp_path / "repository")
    return tmp_path / "repository" / MODEL_NAME


@pytest.fixture
def polling_server(models: Path) -> Iterator[TritonServer]:
    with TritonServer(options(models.parent)) as server:
        yield server


def write_doubled(models: Path, to: Path) -> None:
    """Write version 1's graph with doubled rewards."""
    shutil.copytree(models / "1", to, dirs_exist_ok=True)
    model = onnx.load(models / "1" / "model.onnx", load_external_data=False)
    for node in model.graph.node:
        node.output[:] = ["single" if name == REWARD.name else name for name in node.output]
    model.graph.initializer.append(numpy_helper.from_array(np.float32(2), "two"))
    model.graph.node.append(helper.make_node("Mul", ["single", "two"], [REWARD.name]))
    onnx.save(model, to / "model.onnx")
    (to / MANIFEST_NAME).unlink(missing_ok=True)  # it has version 1's hashes and golden rows


def publish_doubled(models: Path) -> Path:
    """Publish a doubled version as the exporter does."""
    folder = ModelFolder(models.parent)
    with folder.staging(needed_bytes=0) as staged:
        write_doubled(models, staged)
        return folder.publish(staged)


@dataclass
class Answers:
    """What callers have received so far."""

    scores: list[Scores] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)

    def comes_from(self, version: int) -> bool:
        """Whether the latest answer came from this version."""
        return bool(self.scores) and self.scores[-1].model_version == version


@contextlib.contextmanager
def callers(server: TritonServer) -> Iterator[Answers]:
    """Score without pauses, and without retries, which could hide a failure."""
    answers, stop = Answers(), threading.Event()

    def call() -> None:
        while not stop.is_set():
            try:
                answers.scores.append(client.score(TEXTS))
            except Exception as error:
                answers.errors.append(error)
                raise

    with RewardClient(server.grpc_url, connection=Connection(retry=Retry(attempts=1))) as client:
        threads = [threading.Thread(target=call) for _ in range(N_CALLERS)]
        for thread in threads:
            thread.start()
        try:
            yield answers
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def check(answers: Answers) -> list[int]:
    """Check that no call failed or got another version's rewards. -> the versions in order"""
    assert answers.errors == []
    (first, *_) = (one.rewards for one in answers.scores if one.model_version == 1)
    for one in answers.scores:
        factor = 1 if one.model_version in {1, None} else 2
        np.testing.assert_allclose(one.rewards, factor * first, rtol=1e-5, atol=1e-5)
    return [one.model_version for one in answers.scores]


def test_versions_are_exchanged_and_rolled_back_without_a_failed_call(
    models: Path, polling_server: TritonServer, capsys: pytest.CaptureFixture[str]
) -> None:
    with callers(polling_server) as answers:
        assert eventually(lambda: answers.comes_from(1))
        assert publish_doubled(models).name == "2"
        assert eventually(lambda: answers.comes_from(2))
        assert main(["rollback", f"--repository={models.parent}"]) == 0
        assert eventually(lambda: answers.comes_from(1))
        assert publish_doubled(models).name == "3", "2 has been seen, and stays taken"
        assert eventually(lambda: answers.comes_from(3))
    assert set(check(answers)) == {1, 2, 3}
    assert capsys.readouterr().out.strip() == str(models / "1")


def test_a_half_copied_version_leaves_the_old_one_serving_until_it_is_whole(
    models: Path, polling_server: TritonServer
) -> None:
    write_doubled(models, models / ".whole")
    whole = (models / ".whole" / "model.onnx").read_bytes()
    shutil.copytree(models / ".whole", models / ".half")
    (models / ".half" / "model.onnx").write_bytes(whole[: len(whole) // 2])
    with callers(polling_server) as answers:
        (models / ".half").rename(models / "2")
        assert eventually(lambda: "failed to load 'gpt2_reward' version 2" in log(polling_server))
        n_answers = len(answers.scores)
        assert eventually(lambda: len(answers.scores) > n_answers + 2 * N_CALLERS)
        assert set(check(answers)) == {1}
        (models / "2" / "model.onnx").write_bytes(whole)
        assert eventually(lambda: answers.comes_from(2))
    assert set(check(answers)) == {1, 2}


def test_what_is_being_written_does_not_make_the_server_load_again(
    models: Path, polling_server: TritonServer
) -> None:
    with ModelFolder(models.parent).staging(needed_bytes=0) as staged:
        (staged / "part").write_text("x")
        add_model(models.parent, "lookup")  # only a later poll finds it
        assert eventually(lambda: "successfully loaded 'lookup'" in log(polling_server))
    assert log(polling_server).count("loading: gpt2_reward:1") == 1


def test_a_server_does_not_start_on_a_broken_newest_version_and_rolling_back_mends_it(
    models: Path,
) -> None:
    write_doubled(models, models / "2")
    (models / "2" / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(StartError, match="failed to load 'gpt2_reward' version 2") as caught:
        TritonServer(options(models.parent)).start()
    caught.value.log.unlink()
    assert main(["rollback", f"--repository={models.parent}"]) == 0
    with TritonServer(options(models.parent)) as server, RewardClient(server.grpc_url) as client:
        assert client.score(TEXTS).model_version == 1


def log(server: TritonServer) -> str:
    return server.log.read_text()
