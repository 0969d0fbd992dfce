"""The shipped checkpoint, exported, served, and asked with messages in the format it carries."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from waiting import eventually

from reward_client import AsyncRewardClient, NoFormatError, Ranking, RewardClient
from reward_client.cli import main
from reward_contract import MODEL_NAME
from reward_contract.integrity import read_facts
from reward_export.checkpoint import load
from reward_export.conversations import conversations
from reward_serve.commands.serve import polling
from reward_serve.server import ServerOptions, TritonServer
from reward_text import FORMATS, Tokenizer, Usage

SHIPPED = Path(__file__).parents[2] / "checkpoints" / "chitchat"
GROUPS = [
    (
        [
            {"role": ("user", "assistant")[(n - i) % 2], "content": turn}
            for i, turn in enumerate(one.turns[:n])
        ],
        [one.turns[n], f"{one.turns[n]}\n", "I am a fish."],
    )
    for n, one in zip((1, 2, 5, 8), conversations(), strict=False)
    if len(one.turns) > n
]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """The shipped checkpoint as version 1, and as version 2 with another format and window."""
    repository = tmp_path_factory.mktemp("shipped") / "repository"
    words = ["export", str(SHIPPED), f"--repository={repository}"]
    assert main(words) == 0
    assert main([*words, "--format=chai", "--max-tokens=512"]) == 0
    config = repository / MODEL_NAME / "config.pbtxt"
    text = config.read_text()
    config.write_text(text.replace("num_versions: 1", "num_versions: 2"))
    options = ServerOptions(repository, grpc_port=0, http_port=0, metrics_port=0)
    with TritonServer(options) as server:
        yield server


def pytorchs(texts: list[str], max_tokens: int) -> np.ndarray:
    rows = Tokenizer(max_tokens).encode_rows(texts)
    return load(str(SHIPPED)).rewards(rows)[:, 0]


@pytest.mark.parametrize(("version", "name", "max_tokens"), [(1, "lines", 256), (2, "chai", 512)])
def test_messages_get_pytorchs_rewards_of_the_text_that_the_version_reads(
    shipped: TritonServer, version: int, name: str, max_tokens: int
) -> None:
    form = FORMATS[name]
    texts = [
        form.context(said) + form.candidate(reply) for said, replies in GROUPS for reply in replies
    ]
    with RewardClient(shipped.grpc_url, model_version=version) as client:
        rankings = client.rank_many(GROUPS)
        model = client.server_info().of_version(version)
    assert {ranking.chat_format for ranking in rankings} == {form}
    found = np.concatenate([ranking.rewards for ranking in rankings])
    np.testing.assert_allclose(found, pytorchs(texts, max_tokens), atol=1e-4)
    assert (model.usage.chat_format, model.usage.max_tokens) == (form, max_tokens)
    assert model.source == str(SHIPPED)
    for ranking in rankings:
        real, with_line_break, _fish = ranking.rewards
        assert real == with_line_break


async def ranked(url: str) -> tuple[list[Ranking], dict[int, Ranking]]:
    async with AsyncRewardClient(url, model_version=1) as client:
        return await client.rank_many(GROUPS), {
            index: one async for index, one in client.rank_each(GROUPS)
        }


def test_the_asyncio_client_reads_the_same_format(shipped: TritonServer) -> None:
    rankings, each = asyncio.run(ranked(shipped.grpc_url))
    for index, ranking in enumerate(rankings):
        np.testing.assert_allclose(each[index].rewards, ranking.rewards, atol=1e-5)
        assert each[index].chat_format == FORMATS["lines"]


def test_a_wider_window_reads_what_the_cards_does_not(shipped: TritonServer) -> None:
    text = "\n".join("\n".join(one.turns) for one in conversations()[:4])
    assert len(Tokenizer(600).encode(text)) > 512
    for version, max_tokens in ((1, 256), (2, 512)):
        with RewardClient(shipped.grpc_url, model_version=version) as client:
            scores = client.score([text])
        assert scores.lengths.tolist() == [max_tokens]
        np.testing.assert_allclose(scores.rewards, pytorchs([text], max_tokens), atol=1e-4)


def test_a_served_checkpoint_that_names_no_format_refuses_messages(server: TritonServer) -> None:
    with RewardClient(server.grpc_url) as client:
        with pytest.raises(NoFormatError):
            client.rank(*GROUPS[0])
        chat_format = FORMATS["lines"]
    with RewardClient(server.grpc_url, chat_format=chat_format) as client:
        assert client.rank(*GROUPS[0]).chat_format == chat_format
        assert client.server_info().models[0].usage.chat_format is None


def test_the_servers_own_checks_read_the_wider_window(
    shipped: TritonServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", f"--url={shipped.grpc_url}"]) == 0
    _heading, *rows = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in rows][-1] == ["2", "512"]


def write_labelled(file: Path) -> Path:
    """Write real replies and replies from another conversation; the contexts are messages."""
    every = conversations()
    with file.open("w") as out:
        for number, one in enumerate(every):
            for n in range(1, len(one.turns)):
                chat = [{"role": "user", "content": turn} for turn in one.turns[:n]]
                other = every[number - 1].turns
                for label, reply in ((1, one.turns[n]), (0, other[n % len(other)])):
                    row = {"context": chat, "candidate": reply, "label": label}
                    out.write(json.dumps(row) + "\n")
    return file


def test_a_calibration_is_fitted_against_a_server_that_polls_and_shown_by_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn", reason="needs gpt2-reward[evaluate]")
    repository, rows = tmp_path / "repository", write_labelled(tmp_path / "rows.jsonl")
    assert main(["export", str(SHIPPED), f"--repository={repository}"]) == 0
    options = ServerOptions(repository, "127.0.0.1", 0, 0, 0, triton_options=polling(1))
    with TritonServer(options) as server, RewardClient(server.grpc_url) as client:
        before = client.rank(*GROUPS[0])
        words = [f"--calibrate={rows}", f"--repository={repository}", f"--url={server.grpc_url}"]
        assert main(["evaluate", *words]) == 0
        assert capsys.readouterr().out.endswith(f"{repository / MODEL_NAME / '1'}\n")
        written = Usage.from_json(read_facts(repository / MODEL_NAME / "1").usage).calibration
        assert written != before.model.usage.calibration
        assert eventually(
            lambda: client.server_info().models[0].usage.calibration == written, within_s=60
        )
        after = client.rank(*GROUPS[0])
    np.testing.assert_allclose(after.rewards, before.rewards, atol=1e-5)
    wanted = written.probabilities(after.rewards)
    np.testing.assert_allclose(after.probabilities, wanted, rtol=1e-6)
    assert after.model.identity == before.model.identity
