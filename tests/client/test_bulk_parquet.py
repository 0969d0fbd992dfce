"""Parquet files scored against a server in this process."""

import datetime as dt
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from bulk_files import LINES, read, score, wanted, write

from reward_client.testing import FakeServer

pa = pytest.importorskip("pyarrow", reason="needs gpt2-reward[parquet]")
pq = pytest.importorskip("pyarrow.parquet")


def test_a_parquet_file_that_is_damaged_is_said(
    fake: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "in.parquet"
    texts = [f"hello {number * 7919} world" for number in range(5000)]
    pq.write_table(pa.table({"text": texts}), data)
    raw = bytearray(data.read_bytes())
    raw[40:3000] = bytes(byte ^ 0x5A for byte in raw[40:3000])
    data.write_bytes(raw)
    assert score(fake, data, tmp_path / "out.jsonl") == 1
    assert f"cannot read {data} after row" in capsys.readouterr().err


def test_parquet_in_and_out(fake: FakeServer, tmp_path: Path) -> None:
    data, output = tmp_path / "in.parquet", tmp_path / "out.parquet"
    table = pa.Table.from_pylist(
        [*LINES, {"id": "e"}],
        schema=pa.schema(
            [
                ("id", pa.string()),
                ("text", pa.string()),
                ("context", pa.string()),
                ("candidate", pa.string()),
                ("candidates", pa.list_(pa.string())),
            ]
        ),
    )
    pq.write_table(table, data, row_group_size=2)
    assert score(fake, data, output) == 65  # one rejected line of five is too many
    items = pq.read_table(output).to_pylist()
    assert [item["line"] for item in items] == [1, 2, 3, 4]
    assert [item["id"] for item in items] == ["a", "b", "c", None]
    found = [item["rewards"] or [item["reward"]] for item in items]
    assert found == [pytest.approx(wanted(line), rel=1e-6) for line in LINES]
    assert read(tmp_path / "out.parquet.rejected.jsonl")[0]["line"] == 5
    kept = output.read_bytes()
    assert score(fake, data, output) == 65  # nothing is left to do; still too many
    assert score(fake, data, output, "--max-rejected=0.2") == 0
    assert output.read_bytes() == kept
    assert not (tmp_path / "out.parquet.jsonl").exists()


@pytest.mark.parametrize("n_done", range(8))
def test_parquet_is_gone_on_with_from_any_row(
    fake: FakeServer, tmp_path: Path, n_done: int
) -> None:
    data, output = tmp_path / "in.parquet", tmp_path / "out.jsonl"
    pq.write_table(pa.table({"text": [str(i) for i in range(7)]}), data, row_group_size=3)
    assert score(fake, data, output) == 0
    whole = output.read_bytes()
    output.write_bytes(b"".join(whole.splitlines(keepends=True)[:n_done]))
    assert score(fake, data, output) == 0
    assert output.read_bytes() == whole


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        ([1, 2], [1, 2]),
        ([0.5, 2.5], [0.5, 2.5]),
        (["1", None], ["1", None]),
        ([1, "a"], ["1", '"a"']),
    ],
)
def test_ids_keep_their_type_in_parquet_where_they_have_one(
    fake: FakeServer, tmp_path: Path, ids: list[object], found: list[object]
) -> None:
    data = write(tmp_path / "in.jsonl", [{"text": "a", "id": one} for one in ids])
    assert score(fake, data, tmp_path / "out.parquet") == 0
    assert pq.read_table(tmp_path / "out.parquet")["id"].to_pylist() == found


def test_a_file_that_is_no_parquet_is_said_in_one_line(
    fake: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "in.jsonl", LINES)
    assert score(fake, data, tmp_path / "out.jsonl", "--format=parquet") == 1
    errors = capsys.readouterr().err
    assert "as Parquet" in errors
    assert errors.count("\n") == 1


def shard_of(path: Path, first: int, n_rows: int) -> Path:
    """A file of rows that have columns of many types in addition to the text."""
    numbers = range(first, first + n_rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "id": pa.array(numbers, pa.uint32()),
            "when": [dt.datetime(2024, 1, 1 + n % 28, tzinfo=dt.timezone.utc) for n in numbers],
            "text": [None if n % 10 == 3 else f"{n} bottles" for n in numbers],
            "price": [Decimal(n) / 100 for n in numbers],
            "raw": [bytes([n % 256]) for n in numbers],
            "kind": pa.array([f"kind {n % 3}" for n in numbers]).dictionary_encode(),
            "tags": [["a"] * (n % 3) for n in numbers],
            "share": [float("nan") if n % 7 == 0 else n / 7 for n in numbers],
        }
    )
    pq.write_table(table, path, row_group_size=7)
    return path


KEPT = ("--keep", "when", "price", "raw", "kind", "tags", "share", "--max-rejected=0.2")


def test_kept_columns_have_their_types_in_parquet(fake: FakeServer, tmp_path: Path) -> None:
    data, output = shard_of(tmp_path / "in.parquet", 0, 50), tmp_path / "out.parquet"
    assert score(fake, data, output, *KEPT) == 0
    found, given = pq.read_table(output), pq.read_table(data)
    names = ["id", *KEPT[1:-1]]
    assert found.column_names == ["line", *names, "reward", "rewards", "model_version"]
    for name in names:
        assert found.schema.field(name).type == given.schema.field(name).type
    wanted_rows = given.filter(pa.compute.is_valid(given["text"])).select(names).to_pylist()
    np.testing.assert_equal(found.select(names).to_pylist(), wanted_rows)  # NaN included
    for name in ("when", "price", "raw"):
        assert score(fake, data, tmp_path / "out.jsonl", "--keep", name) == 1


def test_kept_columns_that_json_has_are_written_to_it(fake: FakeServer, tmp_path: Path) -> None:
    data, output = shard_of(tmp_path / "in.parquet", 0, 20), tmp_path / "out.jsonl"
    assert score(fake, data, output, "--keep", "kind", "tags", "share", KEPT[-1]) == 0
    item = read(output)[7 - 1]
    assert (item["id"], item["kind"], item["tags"], item["share"]) == (7, "kind 1", ["a"], None)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": [b"a"]}, 'column "text" of {} is binary, not string'),
        ({"context": ["a"], "candidate": [["b"]]}, '"candidate" of {} is list<'),
        ({"context": ["a"], "candidates": ["b"]}, '"candidates" of {} is string'),
        ({"text": ["a"], "id": [b"1"]}, 'column "id" of {} is binary, which JSON does not have'),
        ({"label": [1]}, 'has no column "text" or "candidate" or "candidates"; it has "label"'),
    ],
)
def test_types_are_checked_before_the_first_row_is_scored(
    fake: FakeServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    columns: dict[str, list[object]],
    message: str,
) -> None:
    folder = tmp_path / "data"
    shard_of(folder / "a.parquet", 0, 5)
    pq.write_table(pa.table(columns), folder / "b.parquet")
    # as one file into JSONL, since Parquet takes any id
    data, output = (folder / "b.parquet", "out.jsonl") if "id" in columns else (folder, "out")
    assert score(fake, data, tmp_path / output) == 1
    assert message.format(folder / "b.parquet") in capsys.readouterr().err
    assert not fake.headers
    assert not (tmp_path / output).exists()


def test_a_directory_of_parquet_shards_is_mirrored(fake: FakeServer, tmp_path: Path) -> None:
    folder, output = tmp_path / "data", tmp_path / "rewards"
    for number in range(4):
        shard_of(folder / f"year={number % 2}" / f"part-{number}.parquet", 100 * number, 30)
    assert score(fake, folder, output, *KEPT) == 0
    found = pq.read_table(output)  # other files there are ignored
    assert found.num_rows == 4 * 27
    assert sorted(path.name for path in output.glob("year=1/*")) == [
        "part-1.parquet",
        "part-3.parquet",
    ]


def test_rows_that_are_fixed_are_scored_without_starting_over(
    fake: FakeServer, tmp_path: Path
) -> None:
    data, output = shard_of(tmp_path / "in.parquet", 0, 50), tmp_path / "out.parquet"
    assert score(fake, data, output, *KEPT) == 0
    table = pq.read_table(data)
    texts = [f"{n} bottles" if n != 33 else None for n in range(50)]
    pq.write_table(table.set_column(2, "text", pa.array(texts)), data)
    assert score(fake, data, tmp_path / "whole.parquet", *KEPT) == 0
    n_asked = sum(map(len, fake.requests))
    assert score(fake, data, output, *KEPT, "--rescore-rejected") == 0
    assert sum(map(len, fake.requests)) == n_asked + 4
    assert output.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert [item["line"] for item in read(tmp_path / "out.parquet.rejected.jsonl")] == [34]


def test_kept_values_of_json_have_a_type_in_parquet_if_they_have_one(
    fake: FakeServer, tmp_path: Path
) -> None:
    lines: list[dict[str, object]] = [
        {"text": "a", "n": 1, "f": 1, "b": True, "s": "x", "big": 2**60, "any": [1]},
        {"text": "b", "n": 2, "f": 0.5, "b": None, "s": "y", "big": 0.5, "any": "z"},
    ]
    names = ("--keep", "n", "f", "b", "s", "big", "any")
    data, output = write(tmp_path / "in.jsonl", lines), tmp_path / "out.parquet"
    assert score(fake, data, output, *names) == 0
    assert {name: pq.read_table(output)[name].to_pylist() for name in names[1:]} == {
        "n": [1, 2],
        "f": [1.0, 0.5],
        "b": [True, None],
        "s": ["x", "y"],
        "big": [str(2**60), "0.5"],
        "any": ["[1]", '"z"'],
    }
