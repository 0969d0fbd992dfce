"""Real files: several, compressed, CSV, pipes, named and kept columns, shards."""

import csv
import gzip
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from bulk_files import LINES, read, rewards, score, wanted, write

from reward_client.bulk import Shard
from reward_client.cli import main
from reward_client.testing import FakeServer

REVIEWS: list[dict[str, object]] = [
    {"review": "Good", "stars": 5, "by": {"name": "Ä", "tags": [1, None]}, "id": 7},
    {"review": "Bad", "stars": 0.5, "by": None},
    {"review": "So so", "by": [True]},
]


def run(server: FakeServer, *arguments: object) -> int:
    return main(["score", f"--url={server.url}", *map(str, arguments)])


def as_texts(lines: list[dict[str, object]], name: str) -> list[dict[str, object]]:
    return [{"text": line[name]} for line in lines]


def test_named_columns_are_scored_and_kept_ones_copied(fake: FakeServer, tmp_path: Path) -> None:
    data, output = write(tmp_path / "in.jsonl", REVIEWS), tmp_path / "out.jsonl"
    assert score(fake, data, output, "--text-column=review", "--keep", "stars", "by") == 0
    items = read(output)
    assert rewards(items) == [pytest.approx(wanted(one)) for one in as_texts(REVIEWS, "review")]
    for item, line in zip(items, REVIEWS, strict=True):
        kept = {name: value for name, value in line.items() if name != "review"}
        assert {name: item[name] for name in kept} == kept
        assert list(item) == [
            "line",
            *sorted(kept, key=["id", "stars", "by"].index),
            *list(item)[-2:],
        ]
    assert score(fake, data, output, "--text-column=review", "--keep", "stars") == 1


def test_a_candidate_column_holds_one_or_several(fake: FakeServer, tmp_path: Path) -> None:
    lines: list[dict[str, object]] = [
        {"prompt": "Hi\n", "reply": "a"},
        {"prompt": "", "reply": ["b", "c"], "text": "left alone"},
        {"prompt": "Hi"},
    ]
    data, output = write(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    names = ("--context-column=prompt", "--candidate-column=reply", "--max-rejected=1")
    assert score(fake, data, output, *names) == 0
    groups = [{"context": "Hi\n", "candidate": "a"}, {"context": "", "candidates": ["b", "c"]}]
    assert rewards(read(output)) == [pytest.approx(wanted(one)) for one in groups]
    assert read(tmp_path / "out.jsonl.rejected.jsonl") == [{"line": 3, "reason": 'has no "reply"'}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--text-column=txt"], 'has no column "txt"; it has "review", "stars", "by", "id"'),
        (["--text-column=review", "--keep", "n"], 'has no column "n"'),
        (["--context-column=review"], 'has no column "candidate" or "candidates"'),
        (["--candidate-column=review"], 'has no column "context"'),
        (["--text-column=review", "--context-column=by"], "scored by itself"),
        (["--text-column=review", "--keep", "line"], 'cannot keep "line"'),
        (["--format=text", "--keep", "by"], "is text, which has no columns"),
        (["--rescore-rejected", "--input", "-"], "from file to file"),
    ],
)
def test_columns_are_checked_before_the_first_row_is_scored(
    fake: FakeServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    data, output = write(tmp_path / "in.jsonl", REVIEWS), tmp_path / "out.jsonl"
    if "-" not in options:
        options = [f"--input={data}", *options]
    assert run(fake, *options, f"--output={output}") == 1
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert not fake.headers
    assert not output.exists()


def test_an_id_that_cannot_be_copied_is_told_at_once(
    fake: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "in.jsonl", [{"text": "a", "id": {"a": 1}}])
    assert score(fake, data, tmp_path / "out.jsonl") == 1
    assert '"id" is neither a string nor a finite number' in capsys.readouterr().err
    assert not fake.headers


def test_a_kept_list_with_an_infinite_number_is_set_aside(fake: FakeServer, tmp_path: Path) -> None:
    data, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    data.write_text('{"text": "a", "tags": [1]}\n{"text": "b", "tags": [1e999]}\n')
    assert score(fake, data, output, "--keep", "tags", "--max-rejected=0.5") == 0
    assert [item["tags"] for item in read(output)] == [[1]]
    assert read(tmp_path / "out.jsonl.rejected.jsonl") == [
        {"line": 2, "reason": '"tags" holds a number that is not finite'}
    ]


def test_csv_has_a_header_and_values_with_line_breaks(fake: FakeServer, tmp_path: Path) -> None:
    texts = ["Hi", 'a "quoted"\r\nline, and\nanother', "", "ä"]
    data, output = tmp_path / "in.csv", tmp_path / "out.jsonl"
    with data.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([("id", "review", "n"), *(("007", one, 1) for one in texts)])
        file.write("\r\nonly one\r\n")
    with data.open("ab") as file:
        file.write(b"8,\xff,2\r\n")
    options = ("--text-column=review", "--keep", "n", "--max-rejected=0.5")
    assert score(fake, data, output, *options) == 0
    items = read(output)
    assert rewards(items) == [pytest.approx(wanted({"text": one})) for one in texts]
    assert {(item["id"], item["n"]) for item in items} == {("007", "1")}
    assert [item["line"] for item in items] == [1, 2, 3, 4]
    assert read(tmp_path / "out.jsonl.rejected.jsonl") == [
        {"line": 5, "reason": "blank"},
        {"line": 6, "reason": "has 1 fields, but the header has 3"},
        {"line": 7, "reason": '"review" holds a lone surrogate, which is not Unicode text'},
    ]
    whole = output.read_bytes()
    output.write_bytes(whole[: whole.index(b"\n") + 9])
    assert score(fake, data, output, *options) == 0
    assert output.read_bytes() == whole


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no CSV header"),
        (b"a,b\n1,2\n", 'has no column "text" or "candidate" or "candidates"'),
        (b"text,text\na,b\n", "names 1 columns twice"),
        (b'text\na\n"never closed\nb\n', "is not valid CSV at or before line 4"),
    ],
)
def test_what_is_not_csv_is_one_error(
    fake: FakeServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    message: str,
) -> None:
    data = tmp_path / "in.csv"
    data.write_bytes(content)
    assert score(fake, data, tmp_path / "out.jsonl") == 1
    assert message in capsys.readouterr().err


def zstd(data: bytes) -> bytes:
    pa = pytest.importorskip("pyarrow", reason="needs gpt2-reward[parquet]")
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as packed:
        packed.write(data)
    return bytes(sink.getvalue().to_pybytes())


PACKINGS = pytest.mark.parametrize(
    ("ending", "pack"), [(".gz", gzip.compress), (".zst", zstd)], ids=["gzip", "zstd"]
)


@PACKINGS
def test_packed_files_are_read_and_written_as_plain_ones(
    fake: FakeServer, tmp_path: Path, ending: str, pack: Callable[[bytes], bytes]
) -> None:
    plain = write(tmp_path / "in.jsonl", LINES * 20)
    assert score(fake, plain, tmp_path / "plain.jsonl") == 0
    content, whole = plain.read_bytes(), (tmp_path / "plain.jsonl").read_bytes()
    data, output = tmp_path / f"packed.jsonl{ending}", tmp_path / f"out.jsonl{ending}"
    data.write_bytes(pack(content[:1000]) + pack(content[1000:]))  # two members, as in logs
    assert score(fake, data, output) == 0
    unpacked = tmp_path / "unpacked.jsonl"
    assert score(fake, data, unpacked) == 0
    assert unpacked.read_bytes() == whole
    first = output.read_bytes()
    assert first.startswith(pack(b"")[:4])
    # a run that was killed leaves the working file
    output.unlink()
    (tmp_path / f"out.jsonl{ending}.jsonl").write_bytes(whole[: len(whole) // 2])
    assert score(fake, data, output) == 0
    assert output.read_bytes() == first
    assert score(fake, data, output) == 0  # and nothing is left to do
    output.rename(tmp_path / f"again.txt{ending}")
    assert score(fake, tmp_path / f"again.txt{ending}", tmp_path / "n.jsonl") == 0
    assert len(read(tmp_path / "n.jsonl")) == 80


@PACKINGS
def test_a_torn_packed_file_is_said(
    fake: FakeServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    ending: str,
    pack: Callable[[bytes], bytes],
) -> None:
    lines = "".join(json.dumps({"text": f"{n * 7919 % 1009} bottles"}) + "\n" for n in range(30000))
    data = tmp_path / f"in.jsonl{ending}"
    data.write_bytes(pack(lines.encode())[:-20])
    assert score(fake, data, tmp_path / "out.jsonl") == 1
    assert f"cannot read {data} after line" in capsys.readouterr().err


def piped(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(content)))  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "stdin", stdin)


def test_a_pipe_is_scored_into_a_pipe(
    fake: FakeServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    data, output = write(tmp_path / "in.jsonl", LINES * 20), tmp_path / "out.jsonl"
    assert score(fake, data, output) == 0
    capfd.readouterr()
    piped(monkeypatch, data.read_bytes() + b"{torn\n")
    assert run(fake, "--input", "-", "--output", "-", "--max-rejected=1") == 0
    printed = capfd.readouterr()
    assert printed.out == output.read_text()
    assert json.loads(printed.err.splitlines()[0])["line"] == 81
    assert "80 lines scored into standard output" in printed.err


def test_a_pipe_that_is_sent_again_is_resumed(
    fake: FakeServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = write(tmp_path / "in.jsonl", LINES * 20).read_bytes()
    output = tmp_path / "out.jsonl"
    piped(monkeypatch, content)
    assert run(fake, "--input", "-", "--output", output) == 0
    whole = output.read_bytes()
    output.write_bytes(whole[: len(whole) // 2])
    piped(monkeypatch, content)
    assert run(fake, "--input", "-", "--output", output) == 0
    assert output.read_bytes() == whole
    piped(monkeypatch, content[10:])
    assert run(fake, "--input", "-", "--output", output) == 1
    assert "was made from another input" in capsys.readouterr().err


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tree of files, with what a directory holds besides data."""
    folder = tmp_path / "data"
    for name, lines in {"a.jsonl": LINES, "b/a.jsonl": LINES[::-1], "b/c.jsonl.gz": LINES}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / name, lines)
    packed = folder / "b/c.jsonl.gz"
    packed.write_bytes(gzip.compress(packed.read_bytes()))
    (folder / "d.txt").write_text("Hi\n")
    for name in ("_SUCCESS", ".hidden.jsonl", "notes.md"):
        (folder / name).write_text("{")
    return folder


MIRRORED = ["a.jsonl", "b/a.jsonl", "b/c.jsonl.gz", "d.txt.jsonl"]


def data_of(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in tree(folder).items() if not name.startswith("_score/")}


def test_a_directory_is_mirrored_and_resumed(
    fake: FakeServer, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "rewards"
    assert run(fake, "--input", folder, "--output", output) == 0
    assert f"13 lines of 4 files scored into {output}" in capsys.readouterr().err
    whole = tree(output)
    assert list(data_of(output)) == MIRRORED
    assert rewards(read(output / "b/a.jsonl")) == [
        pytest.approx(wanted(line)) for line in LINES[::-1]
    ]
    (output / "d.txt.jsonl").unlink()
    (output / "b/a.jsonl").write_bytes(whole["b/a.jsonl"][:50])
    assert run(fake, "--input", folder, "--output", output) == 0
    assert tree(output) == whole


def test_shards_of_a_directory_are_its_files_dealt_out(
    fake: FakeServer, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, output = tmp_path / "whole", tmp_path / "rewards"
    assert run(fake, "--input", folder, "--output", whole) == 0
    assert run(fake, "--input", folder, "--output", output, "--shard=2/3") == 0
    assert list(data_of(output)) == ["b/a.jsonl"]
    for shard in ("1/3", "3/3", "2/3"):
        assert run(fake, "--input", folder, "--output", output, f"--shard={shard}") == 0
    assert data_of(output) == data_of(whole)
    capsys.readouterr()
    assert run(fake, "--input", folder, "--output", output, "--shard=9/9") == 0
    assert "fewer files than shards" in capsys.readouterr().err


def test_shards_of_a_file_are_blocks_of_its_lines(fake: FakeServer, tmp_path: Path) -> None:
    fake.config.max_batch_size = 128
    lines: list[dict[str, object]] = [{"text": f"{n}"} for n in range(5000)]
    data = write(tmp_path / "in.jsonl", lines)
    assert score(fake, data, tmp_path / "whole.jsonl") == 0
    found = []
    for number in (1, 2, 3):
        options = (fake, data, tmp_path / "part.jsonl", f"--shard={number}/3")
        assert score(*options) == 0
        part = tmp_path / f"part-0000{number}-of-00003.jsonl"
        own = part.read_bytes()
        part.write_bytes(own[: len(own) // 2])
        assert score(*options) == 0
        assert part.read_bytes() == own
        found += read(part)
    assert sorted(found, key=lambda item: int(str(item["line"]))) == read(tmp_path / "whole.jsonl")
    assert [item["line"] for item in found[:1025]] == [*range(1, 1025), 3073]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_shard_knows_how_many_of_the_first_lines_it_has(count: int) -> None:
    shards = [Shard(number, count) for number in range(1, count + 1)]
    for shard in shards:
        own = [line for line in range(1, 20_001) if shard.has(line)]
        for line in (0, 1, 1023, 1024, 1025, 5000, 9999, 20_000):
            assert shard.n_lines_up_to(line) == sum(one <= line for one in own)
    assert all(sum(shard.has(line) for shard in shards) == 1 for line in range(1, 20_001))


def test_a_pattern_and_several_names_are_files_of_one_directory(
    fake: FakeServer, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "rewards"
    assert run(fake, "--input", f"{folder}/**/a.jsonl", folder / "d.txt", "--output", output) == 0
    assert list(data_of(output)) == ["a.jsonl", "b/a.jsonl", "d.txt.jsonl"]
    names = (folder / "a.jsonl", folder / "b/a.jsonl")
    assert run(fake, "--input", *names, "--output", tmp_path / "other") == 1
    assert "several files would be scored into" in capsys.readouterr().err
    single = tmp_path / "single"
    single.mkdir()
    assert run(fake, "--input", folder / "a.jsonl", "--output", single) == 0
    assert list(data_of(single)) == ["a.jsonl"]
    assert run(fake, "--input", folder / "a.jsonl", "--output", single, "--shard=1/2") == 0
    assert list(data_of(single)) == ["a-00001-of-00002.jsonl", "a.jsonl"]


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        (["nothing*.jsonl"], "out", "no file is named"),
        (["empty"], "out", "has no files named"),
        (["data"], "data", "data overlap;"),
        (["data"], "data/out", "data overlap;"),
        (["data/a.jsonl", "data/d.txt"], "data", "a.jsonl overlap;"),
        (["data"], "-", "for a single file"),
        (["data/a.jsonl", "-"], "out", "for a single file"),
        (["data/a.jsonl", "missing.jsonl"], "out", "cannot read missing.jsonl"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_names_that_cannot_be_scored_are_said_before_anything_is_written(
    fake: FakeServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    inputs: list[str],
    output: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    before = tree(tmp_path)
    assert run(fake, "--input", *inputs, "--output", output) == 1
    assert message in capsys.readouterr().err
    assert tree(tmp_path) == before
    assert not fake.headers


def fix(data: Path) -> None:
    data.write_text(data.read_text().replace("{torn", '{"text": "fixed"}'))


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_lines_that_are_fixed_are_scored_without_starting_over(
    fake: FakeServer, tmp_path: Path, ending: str
) -> None:
    lines = [json.dumps(line) for line in LINES * 30]
    lines[0] = lines[50] = lines[-1] = "{torn"
    lines[70] = "{for ever"
    data, output = tmp_path / "in.jsonl", tmp_path / f"out.jsonl{ending}"
    data.write_text("\n".join(lines) + "\n")
    assert score(fake, data, output, "--max-rejected=1") == 0
    first = [path.read_bytes() for path in (output, Path(f"{output}.rejected.jsonl"))]
    n_asked = sum(map(len, fake.requests))
    assert score(fake, data, output, "--max-rejected=1", "--rescore-rejected") == 0
    assert [output.read_bytes(), Path(f"{output}.rejected.jsonl").read_bytes()] == first
    assert sum(map(len, fake.requests)) == n_asked
    fix(data)
    whole = tmp_path / f"whole.jsonl{ending}"
    assert score(fake, data, whole) == 0
    n_asked = sum(map(len, fake.requests))
    assert score(fake, data, output, "--rescore-rejected") == 0
    assert sum(map(len, fake.requests)) == n_asked + 3
    assert output.read_bytes() == whole.read_bytes()
    assert [item["line"] for item in read(Path(f"{output}.rejected.jsonl"))] == [71]
    assert sorted(path.name for path in tmp_path.glob("out*")) == [
        f"out.jsonl{ending}{end}" for end in ("", ".meta.json", ".rejected.jsonl")
    ]
    assert score(fake, data, output) == 0  # the fixed input is now the recorded one
    # a run that was killed after it replaced the output leaves the old list
    Path(f"{output}.rejected.jsonl").write_bytes(first[1])
    assert score(fake, data, output, "--rescore-rejected") == 0
    assert output.read_bytes() == whole.read_bytes()
    assert [item["line"] for item in read(Path(f"{output}.rejected.jsonl"))] == [71]


def test_fixed_lines_of_another_version_are_not_mixed_in(
    fake: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    data.write_text('{"text": "a"}\n{torn\n{"text": "b"}\n')
    assert score(fake, data, output, "--max-rejected=1") == 0
    whole = output.read_bytes()
    fix(data)
    fake.version = 2
    assert score(fake, data, output, "--rescore-rejected") == 1
    assert "continue with --model-version 1" in capsys.readouterr().err
    assert output.read_bytes() == whole
    fake.version = 1
    assert score(fake, data, output, "--rescore-rejected", "--model-version=1") == 0
    assert [item["line"] for item in read(output)] == [1, 2, 3]
