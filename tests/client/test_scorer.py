"""Rewards as columns, for engines that map over batches."""

import pickle
import threading
from typing import Any

import grpc
import numpy as np
import pytest
from waiting import eventually

from reward_client import (
    InvalidInputError,
    NoFormatError,
    NonFiniteRewardError,
    Tokenizer,
    UnavailableError,
)
from reward_client.scorer import ADDED, NOT_FINITE, RewardScorer
from reward_client.testing import FakeServer
from reward_text import FORMATS, Usage

CONTEXTS = ["How are you?\n", "", "Hi\n"]
CANDIDATES = ["Fine.", "Hello", ""]


def wanted(texts: list[str]) -> list[float]:
    return [float(x) for x in Tokenizer().encode_rows(texts)[:, 0] / np.float32(100)]


WANTED = wanted([a + b for a, b in zip(CONTEXTS, CANDIDATES, strict=True)])


def test_a_dict_of_lists_gets_its_columns(fake: FakeServer) -> None:
    scorer = pickle.loads(pickle.dumps(RewardScorer(fake.url)))  # noqa: S301  # our own
    batch = {"context": CONTEXTS, "candidate": CANDIDATES, "kept": [1, 2, 3]}
    found = scorer(batch)
    assert pickle.loads(pickle.dumps(scorer))(batch) == found  # noqa: S301  # now with a client
    assert list(found) == ["context", "candidate", "kept", *ADDED]
    assert found["reward"] == pytest.approx(WANTED)
    assert found["probability"] == pytest.approx([1 / (1 + np.exp(-one)) for one in WANTED])
    assert found["model_version"] == [1, 1, 1]
    assert found["model"] == ["gpt2_reward"] * 3
    assert found["n_tokens"] == [7, 1, 2]
    assert found["n_truncated"] == [0, 0, 0]
    assert found["kept"] == [1, 2, 3]
    assert {parameters["priority"] for parameters in fake.parameters} == {2}


def test_rows_that_lost_their_beginning_are_counted(fake: FakeServer) -> None:
    found = RewardScorer(fake.url, text_column="text")({"text": ["a " * 300, "a"]})
    assert found["n_tokens"] == [256, 1]
    assert found["n_truncated"] == [1, 0]


def test_copies_in_a_process_share_one_connection(fake: FakeServer) -> None:
    pickled = pickle.dumps(RewardScorer(fake.url, text_column="text"))
    for _ in range(3):  # as an engine does for each task
        pickle.loads(pickled)({"text": ["a"]})  # noqa: S301  # our own
    assert len(fake.headers) == 3 + 3  # the server introduces itself once, in three answers


def test_arrays_tables_and_frames_stay_what_they_are(fake: FakeServer) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs gpt2-reward[parquet]")
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    scorer = RewardScorer(fake.url, text_column="text")
    texts = ["Hi", "Hello"]
    arrays = scorer({"text": np.array(texts, object)})
    assert arrays["reward"].dtype == np.float32
    assert arrays["n_tokens"].dtype == np.int64
    assert arrays["model"].tolist() == ["gpt2_reward"] * 2
    table = scorer(pa.table({"text": texts}))
    assert table.schema.field("reward").type == pa.float32()
    assert table.schema.field("n_tokens").type == pa.int64()
    assert table.schema.field("model").type == pa.string()
    frame = scorer(pd.DataFrame({"text": texts}, index=[7, 9]))
    assert frame.index.tolist() == [7, 9]
    for found in (arrays["reward"].tolist(), table["reward"].to_pylist(), frame["reward"].tolist()):
        assert found == pytest.approx(wanted(texts))


def test_a_data_set_is_mapped() -> None:
    datasets = pytest.importorskip("datasets", reason="needs gpt2-reward[train]")
    texts = [f"{number} bottles" for number in range(50)]
    with FakeServer(lambda ids: ids[:, 0] / 100) as server:
        rows = datasets.Dataset.from_dict({"text": texts})
        scorer = RewardScorer(server.url, text_column="text")
        found = rows.map(scorer, batched=True, batch_size=8)
    assert found["text"][:] == texts
    assert found["reward"][:] == pytest.approx(wanted(texts))


def test_rows_that_cannot_be_scored_are_null_with_a_reason_or_raised() -> None:
    batch: dict[str, Any] = {"text": ["a", None, "Hi", "\ud800"]}
    with FakeServer(lambda ids: np.where(ids[:, 0] == 17250, np.nan, 1.0)) as server:
        found = RewardScorer(server.url, text_column="text", on_error="null")(batch)
        raising = RewardScorer(server.url, text_column="text")
        with pytest.raises(InvalidInputError, match="row 1 of the batch: it is NoneType"):
            raising(batch)
        with pytest.raises(NonFiniteRewardError):
            raising({"text": ["Hi"]})
    assert found["reward"] == [1.0, None, None, None]
    assert found["reward_error"][:3] == [None, "it is NoneType, not a string", NOT_FINITE]
    assert "lone surrogate" in found["reward_error"][3]


CHAT = [{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "Fine."}]
LINES = FORMATS["lines"]


def test_contexts_may_be_messages_in_every_kind_of_batch() -> None:
    pa = pytest.importorskip("pyarrow", reason="needs gpt2-reward[parquet]")
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    named = [{**one, "name": None} for one in CHAT]  # what Arrow makes of names that some lack
    parts = [{**one, "content": [{"type": "text", "text": one["content"]}]} for one in CHAT]
    in_parts = pa.table({"messages": [parts, parts[:1]], "answer": ["And you?", "Well."]})
    columns = {"messages": [CHAT, CHAT[:1]], "answer": ["And you?\n", " Well."]}
    table = pa.table(columns)
    batches: list[Any] = [
        columns,
        {**columns, "messages": [named, named[:1]]},
        table,
        table.to_pandas(),  # a column of arrays
        in_parts,
        in_parts.to_pandas(),  # of arrays that hold arrays
        pd.DataFrame(columns),
    ]
    texts = ["How are you?\nFine.\nAnd you?", "How are you?\nWell."]
    with FakeServer(lambda ids: ids.sum(axis=1) % 97, usage=Usage(LINES)) as server:
        scorer = RewardScorer(server.url, context_column="messages", candidate_column="answer")
        for batch in batches:
            server.requests.clear()
            found = scorer(batch)
            sent = np.concatenate(server.requests)
            np.testing.assert_array_equal(sent, Tokenizer().encode_rows(texts))
            assert np.array(found["n_tokens"]).tolist() == [11, 7]


def test_texts_and_messages_mix_and_what_is_wrong_has_a_reason() -> None:
    contexts: list[Any] = [CHAT, "Hi\n", [{"role": "nobody", "content": "secret"}], 7]
    batch: dict[str, Any] = {"context": contexts, "candidate": ["Yes."] * 4}
    with FakeServer(lambda ids: ids[:, 0], usage=Usage(LINES)) as server:
        found = RewardScorer(server.url, on_error="null")(batch)
        with pytest.raises(InvalidInputError, match="row 2 of the batch: message 0") as caught:
            RewardScorer(server.url)(batch)
    assert caught.value.row == 2
    assert [one is None for one in found["reward"]] == [False, False, True, True]
    assert found["reward_error"][:2] == [None, None]
    assert "message 0" in found["reward_error"][2]
    assert "secret" not in found["reward_error"][2]
    assert found["reward_error"][3] == "its context is int, not text or messages"


def test_messages_need_a_format(fake: FakeServer) -> None:
    batch: dict[str, Any] = {"context": [CHAT], "candidate": ["Well."]}
    with pytest.raises(NoFormatError):  # of every row, so no row is to blame
        RewardScorer(fake.url, on_error="null")(batch)
    assert RewardScorer(fake.url, chat_format="lines")(batch)["reward"] != [None]
    with pytest.raises(ValueError, match="no such format"):
        RewardScorer(fake.url, chat_format="no such format")


def test_columns_are_checked_before_anything_is_asked(fake: FakeServer) -> None:
    with pytest.raises(InvalidInputError, match="no column"):
        RewardScorer(fake.url)({"text": ["a"]})
    with pytest.raises(InvalidInputError, match="already"):
        RewardScorer(fake.url, text_column="text")({"text": ["a"], "reward": [1]})
    with pytest.raises(ValueError, match="on_error"):
        RewardScorer(fake.url, on_error="drop")  # type: ignore[arg-type]
    assert not fake.requests


def test_a_server_that_is_away_is_waited_for_as_long_as_told(fake: FakeServer) -> None:
    fake.fail_with = (grpc.StatusCode.UNAVAILABLE, "restarting")
    scorer = RewardScorer(fake.url, text_column="text", patience_s=0.1)
    with pytest.raises(UnavailableError):
        scorer({"text": ["Hi"]})
    found: list[dict[str, list[object]]] = []
    patient = RewardScorer(fake.url, text_column="text")
    before = len(fake.headers)
    run = threading.Thread(target=lambda: found.append(patient({"text": ["Hi"]})))
    run.start()
    assert eventually(lambda: len(fake.headers) > before + 4)  # beyond the client's own attempts
    fake.fail_with = None
    run.join()
    assert found[0]["reward"] == [172.5]
