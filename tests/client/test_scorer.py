"""Rewards as columns, for engines that map over batches."""

import pickle
import threading
from typing import Any

import grpc
import numpy as np
import pytest
from waiting import eventually

from reward_client import InvalidInputError, NonFiniteRewardError, Tokenizer, UnavailableError
from reward_client.scorer import ADDED, NOT_FINITE, RewardScorer
from reward_client.testing import FakeServer

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
        with pytest.raises(InvalidInputError, match="row 1 of the batch is NoneType"):
            raising(batch)
        with pytest.raises(NonFiniteRewardError):
            raising({"text": ["Hi"]})
    assert found["reward"] == [1.0, None, None, None]
    assert found["reward_error"][:3] == [None, "is NoneType, not a string", NOT_FINITE]
    assert "lone surrogate" in found["reward_error"][3]


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
