"""Parquet files scored against a server in this process."""

from pathlib import Path

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
    assert score(fake, data, output) == 65  # one of five lines is too much
    items = pq.read_table(output).to_pylist()
    assert [item["line"] for item in items] == [1, 2, 3, 4]
    assert [item["id"] for item in items] == ["a", "b", "c", None]
    found = [item["rewards"] or [item["reward"]] for item in items]
    assert found == [pytest.approx(wanted(line), rel=1e-6) for line in LINES]
    assert read(tmp_path / "out.parquet.rejected.jsonl")[0]["line"] == 5
    kept = output.read_bytes()
    assert score(fake, data, output) == 65  # nothing is left to do, and it is still too much
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
