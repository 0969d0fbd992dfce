"""Conversations: rendered as the served model was trained on them, by both clients."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from waiting import HUNG_S

from reward_client import (
    Calibration,
    Connection,
    ContractError,
    Conversation,
    Format,
    InvalidInputError,
    ModelInfo,
    ModelNotFoundError,
    NoFormatError,
    Retry,
    RewardClient,
    Tokenizer,
    UnavailableError,
    Usage,
)
from reward_client.cli import main
from reward_client.testing import FakeServer
from reward_contract.facts import parameter_of
from reward_text import FORMATS

Connect = Callable[..., RewardClient]

SAID = [
    {"role": "assistant", "content": "Hi, how are you?"},
    {"role": "user", "content": "I am fine. What is 2+2?"},
]
CHAI = "Bot: Hi, how are you?\nUser: I am fine. What is 2+2?\nBot:"
LINES = "Hi, how are you?\nI am fine. What is 2+2?\n"
REPLIES = ["The answer is 4!\n", " Five."]
WHOLE = {"chai": [f"{CHAI} The answer is 4!", f"{CHAI} Five."]}
WHOLE["lines"] = [f"{LINES}The answer is 4!", f"{LINES}Five."]


def last_token(ids: NDArray[np.int32]) -> NDArray[np.float32]:
    lengths = (ids != 50256).sum(1)
    return (ids[np.arange(len(ids)), lengths - 1] / 1000).astype(np.float32)


@pytest.fixture
def chai() -> Iterator[FakeServer]:
    with FakeServer(last_token, max_batch_rows=4, usage=Usage(FORMATS["chai"])) as server:
        yield server


def rows(texts: list[str], max_tokens: int = 256) -> NDArray[np.int32]:
    return Tokenizer(max_tokens).encode_rows(texts)


@pytest.mark.parametrize("chat", [SAID, tuple(SAID), Conversation(SAID)])
def test_messages_are_sent_as_the_served_model_reads_them(
    chai: FakeServer, connect: Connect, chat: object
) -> None:
    ranking = connect(chai.url, timeout_s=HUNG_S).rank(chat, REPLIES)
    np.testing.assert_array_equal(chai.requests, [rows(WHOLE["chai"])])
    assert ranking.chat_format == FORMATS["chai"]
    assert sorted(one.text for one in ranking) == sorted(REPLIES), "replies come back as given"


def test_a_line_break_behind_a_reply_changes_nothing(chai: FakeServer, connect: Connect) -> None:
    client = connect(chai.url, timeout_s=HUNG_S)
    one, other = (client.rank(SAID, [reply]) for reply in ("Five.", " Five. \n"))
    np.testing.assert_array_equal(one.rewards, other.rewards)


def test_texts_are_sent_as_they_are_whatever_the_format(chai: FakeServer, connect: Connect) -> None:
    ranking = connect(chai.url, timeout_s=HUNG_S).rank(LINES, REPLIES)
    np.testing.assert_array_equal(chai.requests, [rows([LINES + reply for reply in REPLIES])])
    assert ranking.chat_format is None


def test_an_old_server_takes_texts_and_refuses_messages(
    fake: FakeServer, client: RewardClient
) -> None:
    info = client.server_info()
    assert info.models == (ModelInfo(1, Usage(None, 256, Calibration(1.0, 0.0))),)
    assert client.rank("Hi", ["."]).model == info.of_version(1)
    n_requests = len(fake.requests)
    with pytest.raises(NoFormatError) as caught:
        client.rank(SAID, REPLIES)
    assert isinstance(caught.value, InvalidInputError)
    with pytest.raises(NoFormatError, match="group 1: ") as caught:
        client.rank_many([("Hi", ["."]), (SAID, REPLIES)])
    assert caught.value.group == 1
    assert len(fake.requests) == n_requests, "nothing was sent"
    one, two = client.rank_many([("Hi", ["."]), (SAID, REPLIES)], on_error="nan")
    assert one.best.reward == pytest.approx(172.5)
    assert isinstance(two.error, NoFormatError)
    assert np.isnan(two.rewards).all()


@pytest.mark.parametrize("chat_format", ["lines", FORMATS["lines"]])
def test_one_option_overrides_the_models_format(
    fake: FakeServer, chai: FakeServer, connect: Connect, chat_format: str | Format
) -> None:
    for server in (fake, chai):
        client = connect(server.url, timeout_s=HUNG_S, chat_format=chat_format)
        assert client.rank(SAID, REPLIES).chat_format == FORMATS["lines"]
        np.testing.assert_array_equal(server.requests, [rows(WHOLE["lines"])])


def test_a_format_that_is_not_known_is_refused_when_the_client_is_made() -> None:
    with pytest.raises(ValueError, match=r"chat_format must be one of .*'pygmalion'.*'chia'"):
        RewardClient("localhost:1", chat_format="chia")


def test_groups_may_mix_texts_and_conversations(chai: FakeServer, connect: Connect) -> None:
    client = connect(chai.url, timeout_s=HUNG_S)
    one, two = client.rank_many([(SAID, REPLIES), (LINES, REPLIES)])
    wanted = [*WHOLE["chai"], *(LINES + reply for reply in REPLIES)]
    np.testing.assert_array_equal(np.concatenate(chai.requests), rows(wanted))
    assert (one.chat_format, two.chat_format) == (FORMATS["chai"], None)


def test_a_conversations_context_is_one_shared_prefix(chai: FakeServer, connect: Connect) -> None:
    connect(chai.url, timeout_s=HUNG_S).rank(SAID, REPLIES)
    n_shared = len(Tokenizer().encode(CHAI))
    (sent,) = chai.requests
    assert len({tuple(row[:n_shared]) for row in sent.tolist()}) == 1
    assert sent[0, :n_shared].tolist() == Tokenizer().encode(CHAI).tolist()


@pytest.mark.parametrize("max_tokens", [32, 256, 512])
@pytest.mark.parametrize("truncation", ["left", "shared_context"])
def test_long_conversations_are_cut_where_the_models_window_is(
    chai: FakeServer, connect: Connect, max_tokens: int, truncation: str
) -> None:
    chai.show(Usage(FORMATS["chai"], max_tokens))
    client = connect(chai.url, timeout_s=HUNG_S)
    said = SAID * 60
    ranking = client.rank(said, REPLIES, truncation=truncation)
    context = FORMATS["chai"].context(said)
    wanted = Tokenizer(max_tokens).encode_group(
        context, [" The answer is 4!", " Five."], truncation
    )
    assert wanted.ids.shape == (2, max_tokens)
    np.testing.assert_array_equal(chai.requests[-1], wanted.ids)
    assert [one.is_truncated for one in ranking] == [True, True]


def test_texts_are_cut_at_the_models_window_also_by_the_first_call(
    chai: FakeServer, connect: Connect
) -> None:
    chai.show(Usage(None, 64))
    client, text = connect(chai.url, timeout_s=HUNG_S), "one two three four five " * 100
    assert client.score([text]).lengths.tolist() == [64]
    np.testing.assert_array_equal(chai.requests[-1], rows([text], 64))
    n_requests = len(chai.requests)
    assert client.score([text]).lengths.tolist() == [64]
    assert len(chai.requests) == n_requests + 1, "once the window is known, one request is enough"


def test_an_update_to_another_format_within_a_call_is_rendered_again(
    chai: FakeServer, connect: Connect
) -> None:
    client = connect(chai.url, timeout_s=HUNG_S)
    assert client.rank(SAID, REPLIES).model_version == 1
    chai.show(Usage(FORMATS["lines"], 300), version=2)
    chai.version = 2
    ranking = client.rank(SAID, REPLIES)
    assert (ranking.model_version, ranking.chat_format) == (2, FORMATS["lines"])
    np.testing.assert_array_equal(chai.requests[-1], rows(WHOLE["lines"], 300))
    wanted = last_token(rows(WHOLE["lines"]))
    np.testing.assert_array_equal(ranking.rewards, wanted, "no reward of the wrong text")


@pytest.mark.parametrize("is_asked", [True, False], ids=["scored before", "only refused before"])
def test_an_update_to_a_model_that_names_a_format_ends_refusals(
    fake: FakeServer, client: RewardClient, is_asked: bool
) -> None:
    if is_asked:
        client.rank(LINES, REPLIES)
    with pytest.raises(NoFormatError):
        client.rank(SAID, REPLIES)
    fake.show(Usage(FORMATS["chai"]), version=2)
    fake.version = 2
    ranking = client.rank(SAID, REPLIES)
    assert (ranking.model_version, ranking.chat_format) == (2, FORMATS["chai"])
    np.testing.assert_array_equal(fake.requests[-1], rows(WHOLE["chai"]))


def test_two_servers_of_unlike_formats_each_get_their_own(
    chai: FakeServer, connect: Connect
) -> None:
    with FakeServer(last_token) as other:
        other.version = 2
        other.show(Usage(FORMATS["lines"]), version=2)
        client = connect([chai.url, other.url], timeout_s=HUNG_S)
        for _ in range(4):
            ranking = client.rank(SAID, REPLIES)
            name = {1: "chai", 2: "lines"}[ranking.model_version]
            assert ranking.chat_format == FORMATS[name]
            server = chai if ranking.model_version == 1 else other
            np.testing.assert_array_equal(server.requests[-1], rows(WHOLE[name]))


def test_a_pinned_version_is_asked_in_its_own_format(chai: FakeServer, connect: Connect) -> None:
    chai.show(Usage(FORMATS["lines"]), version=3)
    chai.version = 3
    client = connect(chai.url, timeout_s=HUNG_S, model_version=3)
    assert client.rank(SAID, REPLIES).chat_format == FORMATS["lines"]
    np.testing.assert_array_equal(chai.requests, [rows(WHOLE["lines"])])


def test_a_version_that_is_not_there_is_what_is_told_of(chai: FakeServer, connect: Connect) -> None:
    client = connect(chai.url, timeout_s=HUNG_S)
    client.connect()
    with pytest.raises(ModelNotFoundError, match="no version 7 of gpt2_reward"):
        client.rank(SAID, REPLIES, model_version=7)
    assert client.rank(SAID, REPLIES).model_version == 1


def test_a_server_that_is_away_is_asked_for_its_format_like_for_anything_else(
    connect: Connect, chai: FakeServer
) -> None:
    chai.fail_with = (grpc.StatusCode.UNAVAILABLE, "Socket closed")
    client = connect(chai.url, timeout_s=HUNG_S, connection=Connection(retry=Retry(2, 0.0)))
    with pytest.raises(UnavailableError) as caught:
        client.rank(SAID, REPLIES)
    assert caught.value.attempts == 2
    chai.fail_with = None
    assert client.rank(SAID, REPLIES).chat_format == FORMATS["chai"]


def test_facts_that_cannot_be_read_are_no_reason_to_guess(
    chai: FakeServer, connect: Connect
) -> None:
    shown = chai.config.parameters[parameter_of(1)]
    shown.string_value = shown.string_value.replace("{content}", "{secret}")
    client = connect(chai.url, timeout_s=HUNG_S)
    with pytest.raises(ContractError, match=r"cannot read what .* about version 1 of .*names"):
        client.score(["Hi"])
    assert chai.requests == []


def test_probabilities_are_calibrated_as_the_model_says(chai: FakeServer, connect: Connect) -> None:
    client = connect(chai.url, timeout_s=HUNG_S)
    ranking, scores = client.rank(SAID, REPLIES), client.score(WHOLE["chai"])
    wanted = 1 / (1 + np.exp(-scores.rewards))
    np.testing.assert_allclose(scores.probabilities, wanted, rtol=1e-6)
    np.testing.assert_allclose(ranking.probabilities, wanted, rtol=1e-6)
    chai.show(Usage(FORMATS["chai"], 256, Calibration(0.25, -1.0)), version=2)
    chai.version = 2
    ranking, scores = client.rank(SAID, REPLIES), client.score(WHOLE["chai"])
    wanted = 1 / (1 + np.exp(1 - 0.25 * scores.rewards))
    np.testing.assert_allclose(scores.probabilities, wanted, rtol=1e-6)
    np.testing.assert_allclose(ranking.probabilities, wanted, rtol=1e-6)
    assert ranking.best.probability == ranking.probabilities.max()


def test_none_may_be_good_enough(client: RewardClient) -> None:
    ranking = client.rank("", ["!", '"'])  # rewards 0 and 0.01
    least = ranking.best.probability
    assert ranking.best_above(least) == ranking.best
    assert ranking.best_above(0) == ranking.best
    assert ranking.best_above(math.nextafter(least, 1)) is None
    assert client.rank("", []).best_above(0) is None
    for probability in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="probability must be from 0 to 1"):
            ranking.best_above(probability)


def test_what_cannot_be_scored_is_never_good_enough(connect: Connect) -> None:
    with FakeServer(lambda ids: np.full(len(ids), math.nan)) as server:
        ranking = connect(server.url, timeout_s=HUNG_S).rank("", ["a"], on_error="nan")
    assert ranking.best_above(0) is None
    assert np.isnan(ranking.probabilities).all()


def test_results_and_server_say_which_model_it_is(chai: FakeServer, connect: Connect) -> None:
    client = connect(chai.url, timeout_s=HUNG_S)
    (told,) = client.server_info().models
    assert (told.version, told.source, told.usage) == (1, "fake", Usage(FORMATS["chai"]))
    assert client.score(["Hi"]).model == client.rank("", ["Hi"]).model == told
    chai.show(Usage(FORMATS["chai"]), version=2, sha256="11")
    chai.version = 2
    other = client.score(["Hi"]).model
    assert other.identity != told.identity
    assert replace(other, version=1, identity=told.identity) == told


def test_info_shows_how_each_version_wants_to_be_asked(
    chai: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = Usage(FORMATS["chai"], 512, Calibration(0.5, -1.0))
    chai.show(usage, source="ChaiML/one", precision="int8")
    assert main(["info", f"--url={chai.url}"]) == 0
    told = capsys.readouterr().out
    assert "version 1: precision int8, 512 tokens, format of conversations chai" in told
    assert "sigmoid(0.5 * reward -1)" in told
    assert "from ChaiML/one, revision unknown" in told
    assert main(["info", f"--url={chai.url}", "--json"]) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert model["usage"]["chat_format"]["name"] == "chai"


LINES_OF_MESSAGES = [
    {"messages": SAID, "candidate": "Five.\n"},
    {"messages": SAID, "candidates": REPLIES, "id": 7},
    {"text": "Hi"},
    {"messages": SAID, "bot_name": "Ada", "prompt": "P", "candidate": "x"},
    {"context": LINES, "candidate": "Five."},
]
TEXTS_OF_MESSAGES = [
    f"{CHAI} Five.",
    *WHOLE["chai"],
    "Hi",
    f"P\n{CHAI} x",
    f"{LINES}Five.",
]


def write(file: Path, items: list[dict]) -> Path:
    file.write_text("".join(json.dumps(item) + "\n" for item in items))
    return file


def test_files_are_scored_with_messages(chai: FakeServer, tmp_path: Path) -> None:
    data, out = write(tmp_path / "in.jsonl", LINES_OF_MESSAGES), tmp_path / "out.jsonl"
    words = ["score", f"--input={data}", f"--output={out}", f"--url={chai.url}"]
    assert main(words) == 0
    items = [json.loads(line) for line in out.read_text().splitlines()]
    found = [reward for item in items for reward in item.get("rewards", [item.get("reward")])]
    np.testing.assert_allclose(found, last_token(rows(TEXTS_OF_MESSAGES)), rtol=1e-6)
    assert ["rewards" in item for item in items] == [False, True, False, False, False]
    chai.show(Usage(None))
    assert main([*words[:2], f"--output={out}.2", words[3]]) == 1, "no format: no line is guessed"


def test_messages_that_are_none_are_set_aside_by_their_line(
    chai: FakeServer, tmp_path: Path
) -> None:
    bad = [
        {"messages": "secret", "candidate": "x"},
        {"messages": [{"role": "tool", "content": "secret"}], "candidate": "x"},
        {"messages": [{"role": "user", "content": "\ud800"}], "candidate": "x"},
        {"messages": [], "context": "", "candidate": "x"},
        {"messages": [], "bot_name": 7, "candidate": "x"},
    ]
    data, out = write(tmp_path / "in.jsonl", [*bad, LINES_OF_MESSAGES[0]]), tmp_path / "out.jsonl"
    words = [f"--input={data}", f"--output={out}", f"--url={chai.url}", "--max-rejected=0.9"]
    assert main(["score", *words]) == 0
    rejected = (tmp_path / "out.jsonl.rejected.jsonl").read_text()
    assert [json.loads(line)["line"] for line in rejected.splitlines()] == [1, 2, 3, 4, 5]
    assert "secret" not in rejected
    assert [json.loads(line)["line"] for line in out.read_text().splitlines()] == [6]


def test_a_file_of_messages_in_parquet(chai: FakeServer, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs gpt2-reward[parquet]")
    from pyarrow import parquet  # noqa: PLC0415  # an extra

    columns = {
        "messages": [SAID, None],
        "context": [None, LINES],
        "candidate": ["Five.", "Five."],
    }
    parquet.write_table(pa.table(columns), tmp_path / "in.parquet")
    out = tmp_path / "out.jsonl"
    words = [f"--input={tmp_path / 'in.parquet'}", f"--output={out}", f"--url={chai.url}"]
    assert main(["score", *words]) == 0
    found = [json.loads(line)["reward"] for line in out.read_text().splitlines()]
    np.testing.assert_allclose(found, last_token(rows([WHOLE["chai"][1], f"{LINES}Five."])))


def test_an_output_remembers_the_format_that_was_asked_for(
    chai: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write(tmp_path / "in.jsonl", LINES_OF_MESSAGES), tmp_path / "out.jsonl"
    words = ["score", f"--input={data}", f"--output={out}", f"--url={chai.url}"]
    assert main([*words, "--chat-format=lines"]) == 0
    assert main(words) == 1
    assert "was made with other settings: chat_format was" in capsys.readouterr().err
    assert main([*words, "--chat-format=lines"]) == 0


def test_rewards_of_messages_are_printed(
    chai: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    single = [line for line in LINES_OF_MESSAGES if "candidates" not in line]
    texts = [text for text in TEXTS_OF_MESSAGES if text not in WHOLE["chai"]]
    texts.insert(0, f"{CHAI} Five.")
    file = write(tmp_path / "in.jsonl", single)
    assert main(["score", str(file), f"--url={chai.url}"]) == 0
    found = [float(line) for line in capsys.readouterr().out.splitlines()]
    np.testing.assert_allclose(found, last_token(rows(texts)), rtol=1e-6)


@pytest.mark.parametrize("form", ["list", "object"])
def test_candidates_of_messages_are_ranked_by_the_command(
    chai: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    file = tmp_path / "chat.json"
    file.write_text(json.dumps(SAID if form == "list" else {"messages": SAID, "user_name": "Bo"}))
    words = ["rank", f"--messages={file}", f"--url={chai.url}", "--json"]
    assert main([*words, *REPLIES]) == 0
    np.testing.assert_array_equal(chai.requests[-1], rows(WHOLE["chai"]))
    assert len(json.loads(capsys.readouterr().out)) == 2
    assert main([*words, "--chat-format=lines", *REPLIES]) == 0
    np.testing.assert_array_equal(chai.requests[-1], rows(WHOLE["lines"]))
    for content in ("{", '"text"', "[7]"):
        file.write_text(content)
        assert main([*words, *REPLIES]) == 1
    with pytest.raises(SystemExit):
        main([*words, "--chat-format=chia", *REPLIES])
    assert "neither a format" in capsys.readouterr().err
