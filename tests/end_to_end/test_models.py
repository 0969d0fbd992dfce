"""Several models, and several versions of one, on a real server."""

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2
from waiting import HUNG_S

from reward_client import (
    AsyncRewardClient,
    InvalidInputError,
    ModelNotFoundError,
    NoFormatError,
    NonFiniteRewardError,
    Ranking,
    RewardClient,
)
from reward_client.cli import main
from reward_contract import MODEL_NAME
from reward_contract.facts import MANIFEST_NAME, parameter_of
from reward_export.checkpoint import load
from reward_export.errors import PublishError
from reward_export.random_checkpoint import random_checkpoint
from reward_export.repository import ModelFolder
from reward_serve.errors import RepositoryError
from reward_serve.health import Health
from reward_serve.heartbeat import Heartbeat, Pulse
from reward_serve.server import ServerOptions, TritonServer
from reward_text import FORMATS, Tokenizer

PATIENCE = Pulse(timeout_s=HUNG_S)
MESSAGES = [{"role": "user", "content": "How was your day? " * 70}]
REPLIES = ["Great!\n", "Fine.", "I am a fish."]
WEIGHTS = {MODEL_NAME: 3, "retry": 1}


@pytest.fixture(scope="module")
def other_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with other weights, and with a longer window and a calibration of its own."""
    folder = tmp_path_factory.mktemp("other")
    random_checkpoint(folder, n_layer=2, n_head=4, n_embd=64, seed=1)
    usage = {"max_tokens": 300, "calibration": {"scale": 0.5, "bias": 1.0}}
    (folder / "reward.json").write_text(json.dumps(usage))
    return folder


@pytest.fixture(scope="module")
def models(
    checkpoint_folder: Path, other_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A repository with the usual model, one named `retry`, and one that has no version yet."""
    folder = tmp_path_factory.mktemp("models") / "repository"
    to = f"--repository={folder}"
    assert main(["export", str(checkpoint_folder), to, "--format=lines"]) == 0
    assert main(["export", str(other_checkpoint), to, "--name=retry", "--format=chai"]) == 0
    ModelFolder(folder, "later").configure()
    return folder


@pytest.fixture
def copy(models: Path, tmp_path: Path) -> Path:
    """A repository of the test's own."""
    return Path(shutil.copytree(models, tmp_path / "repository"))


def serve(repository: Path, *names: str) -> TritonServer:
    return TritonServer(
        ServerOptions(repository, grpc_port=0, http_port=0, metrics_port=0, models=names)
    )


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[TritonServer]:
    with serve(models) as server:
        yield server


def config_of(folder: Path) -> model_config_pb2.ModelConfig:
    text = (folder / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_a_model_of_another_name_has_the_shipped_configuration(models: Path) -> None:
    usual, other = config_of(models / MODEL_NAME), config_of(models / "retry")
    assert other.name == "retry"
    for config in (usual, other):
        del config.parameters[parameter_of(1)]
    other.name = MODEL_NAME
    assert other == usual


@pytest.mark.parametrize("name", ["", "../elsewhere", ".hidden", "a b", "1", "größe"])
def test_a_name_that_is_no_folder_and_no_address_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="a model cannot be named"):
        ModelFolder(tmp_path, name)


def test_rollback_is_of_the_named_model(copy: Path) -> None:
    shutil.copytree(copy / "retry" / "1", copy / "retry" / "2")
    assert main(["rollback", f"--repository={copy}", "--name=retry"]) == 0
    assert ModelFolder(copy, "retry").versions() == [1]
    assert ModelFolder(copy).versions() == [1]


def test_all_models_are_served_and_a_named_one_alone(models: Path, server: TritonServer) -> None:
    assert server.models.names == [MODEL_NAME, "retry"]
    with serve(models, "retry") as alone:
        assert alone.models.names == ["retry"]
        with RewardClient(alone.grpc_url, model="retry") as client:
            assert client.server_info().model == "retry"
        with pytest.raises(ModelNotFoundError, match=MODEL_NAME), RewardClient(alone.grpc_url):
            pass  # connecting asks for its model
    with pytest.raises(RepositoryError, match=f"no version of later; it has {MODEL_NAME}, retry"):
        serve(models, "retry", "later").start()


def blend(url: str, **wishes: object) -> Ranking:
    with RewardClient(url, timeout_s=HUNG_S) as client:
        return client.rank(**{"context": MESSAGES, "candidates": REPLIES, **wishes})


async def blend_async(url: str, **wishes: object) -> Ranking:
    async with AsyncRewardClient(url, timeout_s=HUNG_S) as client:
        return await client.rank(**{"context": MESSAGES, "candidates": REPLIES, **wishes})


Blend = Callable[..., Ranking]


@pytest.fixture(params=["sync", "async"])
def rank(request: pytest.FixtureRequest, server: TritonServer) -> Blend:
    if request.param == "sync":
        return lambda **wishes: blend(server.grpc_url, **wishes)
    return lambda **wishes: asyncio.run(blend_async(server.grpc_url, **wishes))


def pytorchs(checkpoint: Path, form: str, max_tokens: int) -> np.ndarray:
    context = FORMATS[form].context(MESSAGES)
    texts = [context + FORMATS[form].candidate(reply) for reply in REPLIES]
    return load(str(checkpoint)).rewards(Tokenizer(max_tokens).encode_rows(texts))[:, 0]


def test_a_blend_is_the_mean_of_the_probabilities_each_model_asked_in_its_own_way(
    rank: Blend, checkpoint_folder: Path, other_checkpoint: Path
) -> None:
    ranking = rank(models=WEIGHTS)
    usual = pytorchs(checkpoint_folder, "lines", 256)
    other = pytorchs(other_checkpoint, "chai", 300)
    np.testing.assert_allclose(ranking.of_model[MODEL_NAME].rewards, usual, atol=1e-4)
    np.testing.assert_allclose(ranking.of_model["retry"].rewards, other, atol=1e-4)
    forms = [one.chat_format.name for one in ranking.of_model.values()]
    assert forms == ["lines", "chai"]
    mean = 0.75 / (1 + np.exp(-usual)) + 0.25 / (1 + np.exp(-(0.5 * other + 1.0)))
    np.testing.assert_allclose(ranking.probabilities, mean, atol=1e-4)
    np.testing.assert_allclose(ranking.rewards, np.log(mean / (1 - mean)), atol=1e-3)
    assert [one.index for one in ranking] == np.argsort(-mean).tolist()
    assert [one.text for one in ranking] == [REPLIES[i] for i in np.argsort(-mean)]
    assert {one.n_tokens for one in ranking} == {300}
    assert all(one.is_truncated for one in ranking)
    assert ranking.model_version is None
    assert [one.model_version for one in ranking.of_model.values()] == [1, 1]


def test_a_format_that_a_client_is_given_is_for_its_own_model(server: TritonServer) -> None:
    with RewardClient(server.grpc_url, timeout_s=HUNG_S, chat_format="pygmalion") as client:
        ranking = client.rank(MESSAGES, REPLIES, models={MODEL_NAME: 1, "retry": 1})
    formats = {name: own.chat_format for name, own in ranking.of_model.items()}
    assert formats == {MODEL_NAME: FORMATS["pygmalion"], "retry": FORMATS["chai"]}


def test_a_model_of_no_weight_is_asked_and_counts_for_nothing(rank: Blend) -> None:
    ranking = rank(models={MODEL_NAME: 0.2, "retry": 0})
    own = ranking.of_model[MODEL_NAME]
    np.testing.assert_allclose(ranking.rewards, own.rewards, rtol=1e-6)
    assert [one.index for one in ranking] == [one.index for one in own]
    assert len(ranking.of_model["retry"]) == len(REPLIES)
    assert len(rank(models=WEIGHTS, candidates=[])) == 0


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "none of 0 models has a weight above 0"),
        ({MODEL_NAME: 0.0, "retry": 0}, "none of 2 models has a weight above 0"),
        ({MODEL_NAME: 1, "retry": float("nan")}, "weight of the model 'retry' is nan"),
        ({MODEL_NAME: float("inf")}, f"weight of the model '{MODEL_NAME}' is inf"),
        ({MODEL_NAME: 1, "retry": -0.5}, "weight of the model 'retry' is -0.5"),
        ({MODEL_NAME: "1"}, f"weight of the model '{MODEL_NAME}' is str"),
        ([MODEL_NAME, "retry"], "models is list"),
    ],
)
def test_weights_that_make_no_mean_are_refused(rank: Blend, weights: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        rank(models=weights)


def test_a_blend_names_the_model_that_is_not_there(rank: Blend) -> None:
    with pytest.raises(ModelNotFoundError, match="later"):
        rank(models={MODEL_NAME: 1, "later": 1})
    with pytest.raises(ValueError, match="model_version 1 belongs to one model, but 2 are asked"):
        rank(models=WEIGHTS, model_version=1)


def test_a_blend_of_messages_needs_each_models_format(copy: Path) -> None:
    config = copy / "retry" / "config.pbtxt"
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if parameter_of(1) not in line))
    with serve(copy) as server:
        with pytest.raises(NoFormatError, match="model 'retry': the context is a conversation"):
            blend(server.grpc_url, models=WEIGHTS)
        assert len(blend(server.grpc_url, models=WEIGHTS, context="Hi")) == len(REPLIES)


def spoil(model: Path) -> None:
    """Make all rewards of a model NaN."""
    weights = model / "1" / "model.onnx.data"
    weights.write_bytes(b"\xff" * weights.stat().st_size)  # NaN in float32
    (model / "1" / MANIFEST_NAME).unlink()


def test_a_candidate_without_a_reward_of_one_model_has_none_at_all(copy: Path) -> None:
    spoil(copy / "retry")
    with serve(copy) as server:
        with pytest.raises(NonFiniteRewardError, match="model 'retry': rows 0, 1, 2 of 3"):
            blend(server.grpc_url, models=WEIGHTS)
        ranking = blend(server.grpc_url, models=WEIGHTS, on_error="nan")
        assert np.isnan(ranking.rewards).all()
        assert np.isnan(ranking.probabilities).all()
        assert np.isfinite(ranking.of_model[MODEL_NAME].rewards).all()


def test_commands_ask_the_model_they_are_told(
    server: TritonServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = [f"--url={server.grpc_url}", "--model=retry"]
    texts = tmp_path / "texts.txt"
    texts.write_text("Hi\nHow are you?\n")
    with RewardClient(server.grpc_url, model="retry", timeout_s=HUNG_S) as client:
        wanted = client.score(["Hi", "How are you?"]).rewards
        best = client.rank("Hi", [" you", " fish"]).best
    assert main(["score", str(texts), *to]) == 0
    np.testing.assert_allclose([float(n) for n in capsys.readouterr().out.split()], wanted)
    assert main(["rank", "--json", "--context=Hi", " you", " fish", *to]) == 0
    assert json.loads(capsys.readouterr().out)[0]["reward"] == pytest.approx(best.reward)
    assert main(["info", *to]) == 0
    assert "model retry, version 1" in capsys.readouterr().out
    assert main(["info", f"--url={server.grpc_url}", "--model=later"]) == 1


def test_every_model_is_verified(
    models: Path, copy: Path, server: TritonServer, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [f"--url={server.grpc_url}", "--model=retry"]
    assert main(["verify", *asked]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[:2] == ["1", "300"]
    assert main(["verify", f"--url={server.grpc_url}", f"--repository={models}"]) == 0
    found = capsys.readouterr().out.splitlines()
    assert [line for line in found if line.endswith(":")] == [f"{MODEL_NAME}:", "retry:"]
    weights = copy / "retry" / "1" / "model.onnx.data"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\xff" * 4)
    assert main(["verify", f"--repository={copy}"]) == 1
    told = "gpt2-reward verify: retry version 1: model.onnx.data has sha256"
    assert capsys.readouterr().err.startswith(told)
    assert main(["verify", f"--repository={copy}", f"--model={MODEL_NAME}"]) == 0
    capsys.readouterr()
    assert main(["verify", *asked, "--model=later", f"--model={MODEL_NAME}"]) == 1
    out, err = capsys.readouterr()
    assert [line for line in out.splitlines() if line.endswith(":")][-1] == f"{MODEL_NAME}:"
    assert out.splitlines()[-1].split()[0] == "1"
    assert "later" in err


def test_damaged_files_of_one_model_leave_the_others(copy: Path) -> None:
    weights = copy / "retry" / "1" / "model.onnx.data"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\xff" * 4)
    told: list[str] = []
    options = ServerOptions(copy, grpc_port=0, http_port=0, metrics_port=0)
    with TritonServer(options, tell=told.append) as server:
        assert server.models.names == [MODEL_NAME]
    assert told[0].startswith("retry version 1 is not served: model.onnx.data has sha256")


def test_the_heartbeat_asks_every_model(copy: Path) -> None:
    manifest = copy / "retry" / "1" / MANIFEST_NAME
    health = Health()
    with serve(copy) as server:
        beat = Heartbeat(server.control, server.models, server.takes_connections, PATIENCE, health)
        beat.beat()
        assert (health.is_ready, health.models) == (True, {MODEL_NAME: True, "retry": True})
        found = json.loads(manifest.read_text())
        found["golden"]["rewards"][0] += 1.0
        manifest.write_text(json.dumps(found))
        beat.beat()
        assert health.reason.startswith("golden row 0 of retry version 1 got")
        assert '\ngpt2_reward_model_ready{model="retry"} 0\n' in health.metrics()
        assert f'\ngpt2_reward_model_ready{{model="{MODEL_NAME}"}} 1\n' in health.metrics()


def test_two_versions_stand_side_by_side_and_each_client_keeps_to_its_own(
    copy: Path, other_checkpoint: Path
) -> None:
    config = copy / MODEL_NAME / "config.pbtxt"
    text = config.read_text()
    both = text.replace("latest: { num_versions: 1 }", "specific: { versions: [ 1, 2 ] }")
    assert both != text
    config.write_text(both)
    assert main(["export", str(other_checkpoint), f"--repository={copy}"]) == 0
    with (
        serve(copy) as server,
        RewardClient(server.grpc_url, model_version=1) as control,
        RewardClient(server.grpc_url, model_version=2) as canary,
        RewardClient(server.grpc_url) as unpinned,
        RewardClient(server.grpc_url, model="retry") as twin,
    ):
        assert unpinned.server_info().model_versions == (1, 2)
        old, new, same = (client.rank("Hi", REPLIES) for client in (control, canary, twin))
        assert (old.model_version, new.model_version) == (1, 2)
        assert old.model.identity != new.model.identity == same.model.identity
        np.testing.assert_allclose(new.rewards, same.rewards, atol=1e-5)
        assert np.abs(new.rewards - old.rewards).max() > 1e-3
        assert unpinned.rank("Hi", REPLIES).model_version == 2, "the newest, unless pinned"
        assert (
            unpinned.rank("Hi", REPLIES, model_version=1).rewards.tolist() == old.rewards.tolist()
        )
