"""Text in, rewards out, through the real tritonserver, compared with the card's snippet."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from reward_client import ModelNotFoundError, RewardClient, Tokenizer, wire
from reward_client.cli import main
from reward_export.checkpoint import Checkpoint, load
from reward_export.conversations import conversations
from reward_serve.server import TritonServer


@pytest.fixture(scope="module")
def checkpoint(checkpoint_folder: Path) -> Checkpoint:
    return load(str(checkpoint_folder))


@pytest.fixture
def client(server: TritonServer) -> RewardClient:
    with RewardClient(server.grpc_url) as client:
        yield client


def reference(checkpoint: Checkpoint, texts: list[str]) -> np.ndarray:
    return checkpoint.rewards(Tokenizer().encode_rows(texts))[:, 0]


def groups(n_candidates: int) -> list[tuple[str, list[str]]]:
    """Real conversations, short and beyond 256 tokens, with replies of others."""
    dialogues = conversations()
    replies = [turn for dialogue in dialogues for turn in dialogue.turns]
    return [
        ("\n".join(dialogue.turns[: 1 + 2 * i]) + "\n", replies[9 * i :][:n_candidates])
        for i, dialogue in enumerate(dialogues[:20])
    ]


def test_rewards_over_grpc_are_those_of_pytorch(
    client: RewardClient, checkpoint: Checkpoint
) -> None:
    texts = [context + reply for context, replies in groups(4) for reply in replies]
    texts += ["", "<|endoftext|>", "Hi<|endoftext|>there", "x" * 5000]
    np.testing.assert_allclose(
        client.score(texts).rewards, reference(checkpoint, texts), rtol=0, atol=1e-5
    )


def test_more_texts_than_a_batch(client: RewardClient, checkpoint: Checkpoint) -> None:
    texts = [f"{number} bottles of beer" for number in range(300)]
    np.testing.assert_allclose(
        client.score(texts).rewards, reference(checkpoint, texts), rtol=0, atol=1e-5
    )


def test_callers_at_once_get_their_own_rewards(
    client: RewardClient, checkpoint: Checkpoint
) -> None:
    asked = groups(5) * 3
    with ThreadPoolExecutor(12) as pool:
        rankings = list(pool.map(lambda group: client.rank(*group), asked))
    for (context, candidates), ranking in zip(asked, rankings, strict=True):
        wanted = reference(checkpoint, [context + text for text in candidates])
        found = {candidate.index: candidate.reward for candidate in ranking}
        np.testing.assert_allclose([found[i] for i in range(5)], wanted, rtol=0, atol=1e-5)
        rewards = [candidate.reward for candidate in ranking]
        assert rewards == sorted(rewards, reverse=True)


def test_who_answers(client: RewardClient, server: TritonServer) -> None:
    info = client.connect()
    assert (info.name, info.version) == ("triton", "2.51.0")
    assert (info.model, info.model_versions, info.max_batch_rows) == ("gpt2_reward", (1,), 16)
    assert info.url == server.grpc_url


@pytest.mark.parametrize("options", [{"model": "other"}, {"model_version": 9}])
def test_a_model_or_version_that_is_not_there(
    server: TritonServer, options: dict[str, object]
) -> None:
    client = RewardClient(server.grpc_url, **options)
    with pytest.raises(ModelNotFoundError, match="ask for another version"):
        client.score(["Hi"])
    client.close()


def test_a_pinned_version_answers(server: TritonServer, checkpoint: Checkpoint) -> None:
    with RewardClient(server.grpc_url, model_version=1) as client:
        found = client.score(["Hi"]).rewards
    np.testing.assert_allclose(found, reference(checkpoint, ["Hi"]), rtol=0, atol=1e-5)


@pytest.fixture
def stub(server: TritonServer) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
    """A raw gRPC stub, for requests that the client never sends."""
    with grpc.insecure_channel(server.grpc_url) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def request(ids: np.ndarray) -> service_pb2.ModelInferRequest:
    return wire.request_of(ids, model="gpt2_reward", version="", priority_level=None)


def test_a_batch_that_is_too_large_is_refused(
    stub: service_pb2_grpc.GRPCInferenceServiceStub,
) -> None:
    with pytest.raises(grpc.RpcError, match="inference request batch-size must be <="):
        stub.ModelInfer(request(np.zeros((17, 4), np.int32)))


def test_bad_ids_answer_nan_for_their_row_alone(
    stub: service_pb2_grpc.GRPCInferenceServiceStub, checkpoint: Checkpoint
) -> None:
    ids = Tokenizer().encode_rows(["one", "two", "three"])
    poisoned = ids.copy()
    poisoned[1, 0] = 50257
    rewards = wire.rewards_of(stub.ModelInfer(request(poisoned)), 3)
    assert np.isnan(rewards[1])
    wanted = checkpoint.rewards(ids)[[0, 2], 0]
    np.testing.assert_allclose(rewards[[0, 2]], wanted, rtol=0, atol=1e-5)


def test_the_commands_work_on_a_real_server(
    server: TritonServer,
    checkpoint: Checkpoint,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("Hi\nHow are you?\n")
    assert main(["score", f"--url={server.grpc_url}", str(file)]) == 0
    found = [float(line) for line in capsys.readouterr().out.split()]
    np.testing.assert_allclose(
        found, reference(checkpoint, ["Hi", "How are you?"]), rtol=0, atol=1e-5
    )
    assert main(["rank", f"--url={server.grpc_url}", "--context", "Hi", " you", " me"]) == 0
    assert capsys.readouterr().out.startswith("*  1  ")
