"""Rows from files, and what cannot be used."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reward_text import FORMATS, Tokenizer
from reward_train.errors import DataError
from reward_train.labels import kind_of, label_of
from reward_train.rows import RowRules, packed_items, read_rows

ROWS = [
    {"context": "Hi\n", "candidate": "Hello you", "label": 1, "group": "a"},
    {"context": "Hi\n", "candidate": "Hello there", "label": 0, "group": "a"},
    {"context": "Bye\n", "candidate": "So long", "label": 1, "group": "b"},
]


def write(folder: Path, rows: list[dict[str, object]]) -> str:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ({"label": 1}, 1.0),
        ({"label": 0, "retry": False, "remaining_user_messages": 9}, 0.0),
        ({"retry": False, "remaining_user_messages": 2}, 1.0),
        ({"retry": False, "remaining_user_messages": 1}, 0.0),
        ({"retry": True, "remaining_user_messages": 5}, 0.0),
    ],
)
def test_accepted_is_no_retry_and_enough_further_messages(
    row: dict[str, object], label: float
) -> None:
    assert label_of(row) == label


def test_each_row_is_an_item_unless_packed(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path, ROWS))
    alone = packed_items(rows, RowRules(), tmp_path / "1")
    assert [len(item["labels"]) for item in alone] == [1, 1, 1]
    packed = packed_items(rows, RowRules(pack=64), tmp_path / "2")
    assert [item["labels"] for item in packed] == [[1.0, 0.0], [1.0]]
    assert sum(packed["length"]) < sum(alone["length"])


def test_items_are_no_longer_than_asked(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path, [{**ROWS[0], "candidate": f"no {n}"} for n in range(20)]))
    items = packed_items(rows, RowRules(pack=12), tmp_path / "tokens")
    assert max(items["length"]) <= 12
    assert sum(len(item["labels"]) for item in items) == 20


def test_parquet_is_read_as_well(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), file)
    assert [row["candidate"] for row in read_rows(str(file))] == [r["candidate"] for r in ROWS]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"context": "Hi\n", "candidate": "yes"}, 'row 1: no "label"'),
        ({"context": "Hi\n", "candidate": "yes", "label": 2}, "row 1: .*neither 0 nor 1"),
        ({"context": "Hi\n", "candidate": None, "label": 1}, "row 1"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(
    bad: dict[str, object], message: str, tmp_path: Path
) -> None:
    rows = read_rows(write(tmp_path, [ROWS[0], bad]))
    with pytest.raises(DataError, match=message) as raised:
        packed_items(rows, RowRules(), tmp_path / "tokens")
    assert raised.value.row == 1


@pytest.mark.parametrize("content", ["", "{torn\n"])
def test_files_without_rows_are_refused(content: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(content)
    with pytest.raises(DataError):
        read_rows(str(file))


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(DataError, match=r"no file missing\.jsonl"):
        read_rows("missing.jsonl")


def test_messages_are_rendered_in_the_format_of_the_rules(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "Hi"}]
    rows = [
        {"messages": said, "candidate": "Hello you\n", "label": 1},
        {"context": "User: Hi\nBot:", "candidate": " Hello you", "label": 0},
    ]
    rules = RowRules(chat_format=FORMATS["chai"], max_tokens=300)
    one, other = packed_items(read_rows(write(tmp_path, rows)), rules, tmp_path / "tokens")
    wanted = Tokenizer().encode("User: Hi\nBot: Hello you").tolist()
    assert one["input_ids"] == other["input_ids"] == wanted
    with pytest.raises(DataError, match="row 0: the context is a conversation"):
        packed_items(read_rows(write(tmp_path, rows)), RowRules(), tmp_path / "none")


def test_rows_of_one_file_may_have_names_and_others_none(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "Hi"}], "candidate": "Yes", "label": 1}
    rows = read_rows(write(tmp_path, [{**row, "bot_name": "Ada", "prompt": "P"}, row]))
    rules = RowRules(chat_format=FORMATS["pygmalion"])
    items = packed_items(rows, rules, tmp_path / "tokens")
    wanted = ["P\n<START>\nUser: Hi\nAda: Yes", "User: Hi\nBot: Yes"]
    found = [item["input_ids"] for item in items]
    assert found == [Tokenizer().encode(text).tolist() for text in wanted]


def test_the_window_is_that_of_the_rules(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path, [{**ROWS[0], "context": "word " * 1000}]))
    for max_tokens in (20, 512):
        rules = RowRules(max_tokens=max_tokens)
        (item,) = packed_items(rows, rules, tmp_path / str(max_tokens))
        assert item["length"] == max_tokens


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"kind": "other", "retry": True}, "other"),
        ({"retry": True, "remaining_user_messages": 5}, "retry"),
        ({"retry": False, "remaining_user_messages": 1}, "ended"),
        ({"label": 0}, ""),
    ],
)
def test_why_a_row_was_not_accepted(row: dict[str, object], kind: str) -> None:
    assert kind_of(row) == kind
