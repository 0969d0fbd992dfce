"""Files scored against a server in this process: forms, refusals, waiting."""

import gzip
import json
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from bulk_files import LINES, read, rewards, score, wanted, write
from waiting import HUNG_S, eventually

from reward_client import Tokenizer, Truncation, endpoints
from reward_client.bulk import lines
from reward_client.bulk.asker import MAX_ROWS
from reward_client.cli import main
from reward_client.testing import FakeServer
from reward_text import FORMATS, Calibration, Usage


def test_each_form_gets_its_rewards_id_line_and_version(fake: FakeServer, tmp_path: Path) -> None:
    data = write(tmp_path / "in.jsonl", LINES)
    assert score(fake, data, tmp_path / "out.jsonl") == 0
    items = read(tmp_path / "out.jsonl")
    assert rewards(items) == [pytest.approx(wanted(line), rel=1e-6) for line in LINES]
    assert [item.get("id") for item in items] == ["a", "b", "c", None]
    assert "id" not in items[3]
    assert [item["line"] for item in items] == [1, 2, 3, 4]
    assert {item["model_version"] for item in items} == {1}
    assert (tmp_path / "out.jsonl.rejected.jsonl").read_bytes() == b""
    assert {parameters["priority"] for parameters in fake.parameters} == {2}


def test_a_group_of_many_requests_has_the_time_of_as_many(tmp_path: Path) -> None:
    data = write(tmp_path / "in.jsonl", [{"context": "Hi", "candidates": ["!"] * 64 * 10}])
    with FakeServer(lambda ids: ids[:, 0], max_batch_rows=32) as server:
        server.delay_s = 0.2  # 20 requests, 4 at a time: 1 s
        assert score(server, data, tmp_path / "out.jsonl", "--timeout=0.5", "--patience=60") == 0
    assert len(read(tmp_path / "out.jsonl")[0]["rewards"]) == 640


@pytest.mark.parametrize("truncation", ["left", "shared_context"])
def test_a_context_with_one_candidate_is_sent_as_the_group_that_it_is(
    tmp_path: Path, truncation: Truncation
) -> None:
    pairs = [("word " * 400, "a reply"), ("", "x"), ("Hi", "!" * 2000), ("no blank" * 300, "é ü")]
    data = write(tmp_path / "in.jsonl", [{"context": a, "candidate": b} for a, b in pairs])
    with FakeServer(lambda ids: ids[:, 0]) as server:
        assert score(server, data, tmp_path / "out.jsonl", f"--truncation={truncation}") == 0
        found = np.concatenate(server.requests)
    groups = [Tokenizer().encode_group(a, [b], truncation).ids for a, b in pairs]
    np.testing.assert_array_equal(found, np.concatenate(groups))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[\n{"text": "a"}\n]', "is a JSON array"),
        ('{"text": "a"}\n'.encode("utf-16"), "is UTF-16"),
        (gzip.compress(gzip.compress(b"a", mtime=0), mtime=0), "compressed twice"),
        (b"PAR1....", "Parquet or compressed"),
    ],
)
def test_a_file_that_is_something_else_is_said_before_anything_is_written(
    fake: FakeServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    message: str,
) -> None:
    data = tmp_path / "in.jsonl"
    data.write_bytes(content)
    assert score(fake, data, tmp_path / "out.jsonl") == 1
    assert message in capsys.readouterr().err
    assert not fake.headers
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_rewards_come_back_as_every_bit_of_float32(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=64).astype(np.float32)
    data = write(tmp_path / "in.jsonl", [{"text": "a"}] * 64)
    with FakeServer(lambda ids: values[: len(ids)]) as server:
        assert score(server, data, tmp_path / "out.jsonl") == 0
    found = [item["reward"] for item in read(tmp_path / "out.jsonl")]
    np.testing.assert_array_equal(np.array(found, np.float32), values)


def test_lines_are_in_the_order_of_the_input_when_answers_are_not(tmp_path: Path) -> None:
    def slowly_at_times(ids: np.ndarray) -> np.ndarray:
        time.sleep(0.05 * (ids[0, 0] % 3))
        return ids[:, 0] / 100

    lines: list[dict[str, object]] = [{"text": f"{number} more"} for number in range(1000)]
    data = write(tmp_path / "in.jsonl", lines)
    with FakeServer(slowly_at_times) as server:
        assert score(server, data, tmp_path / "out.jsonl") == 0
    found = rewards(read(tmp_path / "out.jsonl"))
    assert found == [pytest.approx(wanted(line), rel=1e-6) for line in lines]


def test_lines_that_cannot_be_scored_are_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "in.jsonl"
    data.write_text(
        '{"text": "a"}\n{bad\n{"context": "", "candidates": ["b", "Hi"]}\n\n{"text": "c"}'
    )
    with FakeServer(lambda ids: np.where(ids[:, 0] == 17250, np.nan, 1.0)) as server:
        assert score(server, data, tmp_path / "out.jsonl", "--max-rejected=0.6") == 0
    assert [item["line"] for item in read(tmp_path / "out.jsonl")] == [1, 5]
    rejected = read(tmp_path / "out.jsonl.rejected.jsonl")
    assert [item["line"] for item in rejected] == [2, 3, 4]
    assert rejected[1]["reason"] == "the model's reward is NaN or infinite"
    errors = capsys.readouterr().err
    assert errors.startswith(f"2 lines scored into {tmp_path}/out.jsonl, 2 rows at ")
    assert errors.endswith(f"; 3 set aside in {tmp_path}/out.jsonl.rejected.jsonl\n")


@pytest.mark.parametrize(
    ("n_good", "n_bad", "options", "code"),
    [
        (0, 0, (), 0),
        (0, 3, ("--max-rejected=1",), 65),  # scoring nothing at all is never a success
        (99, 1, (), 0),
        (98, 2, (), 65),
        (98, 2, ("--max-rejected=0.02",), 0),
        (98, 2, ("--max-rejected=0",), 65),
    ],
)
def test_the_exit_code_tells_whether_enough_was_scored(
    fake: FakeServer, tmp_path: Path, n_good: int, n_bad: int, options: tuple[str, ...], code: int
) -> None:
    data = tmp_path / "in.jsonl"
    data.write_text('{"text": "a"}\n' * (n_good // 2) + "{bad\n" * n_bad)
    with data.open("a") as file:
        file.write('{"text": "a"}\n' * (n_good - n_good // 2))
    assert score(fake, data, tmp_path / "out.jsonl", *options) == code
    assert score(fake, data, tmp_path / "out.jsonl", *options) == code  # earlier runs count too


def test_a_list_of_rejected_lines_of_somebody_else_is_left_alone(
    fake: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output = write(tmp_path / "in.jsonl", LINES), tmp_path / "out.jsonl"
    rejected = tmp_path / "out.jsonl.rejected.jsonl"
    rejected.write_text('{"line": 9, "reason": "theirs"}\n')
    assert score(fake, data, output) == 1
    assert "move it away" in capsys.readouterr().err
    assert rejected.read_text() == '{"line": 9, "reason": "theirs"}\n'
    rejected.unlink()
    assert score(fake, data, output) == 0
    output.unlink()
    for content in ('{"line": 9, "text": "theirs"}\n', '{"line": 9, "reason": ""}\n7\n', "notes"):
        rejected.write_text(content)
        assert score(fake, data, output) == 1
        assert rejected.read_text() == content


def test_strict_ends_at_the_line_and_goes_on_when_it_is_mended(
    fake: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    data.write_text('{"text": "a"}\n{bad\n{"text": "c"}\n')
    assert score(fake, data, output, "--strict") == 1
    assert "line 2 of" in capsys.readouterr().err
    assert [item["line"] for item in read(output)] == [1]
    data.write_text('{"text": "a"}\n{"text": "b"}\n{"text": "c"}\n')
    assert score(fake, data, output, "--strict") == 1
    assert "size was 33, is 42" in capsys.readouterr().err
    assert score(fake, data, output, "--strict", "--trust-input") == 0
    assert [item["line"] for item in read(output)] == [1, 2, 3]


def test_versions_are_not_mixed(
    fake: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output = write(tmp_path / "in.jsonl", LINES), tmp_path / "out.jsonl"
    assert score(fake, data, output) == 0
    whole = output.read_bytes()
    output.write_bytes(whole[: whole.index(b"\n") + 1])
    fake.version = 2
    assert score(fake, data, output) == 1
    assert "continue with --model-version 1, or use another output" in capsys.readouterr().err
    assert len(read(output)) == 1
    fake.version = 1
    assert score(fake, data, output, "--model-version=1") == 0
    assert output.read_bytes() == whole


def test_an_output_of_something_else_is_refused(
    fake: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output = write(tmp_path / "in.jsonl", LINES), tmp_path / "out.jsonl"
    other = write(tmp_path / "other.jsonl", LINES[::-1])
    assert score(fake, data, output) == 0
    kept = output.read_bytes()
    assert score(fake, other, output) == 1
    assert "was made from another input" in capsys.readouterr().err
    assert score(fake, data, output, "--truncation=shared_context") == 1
    assert "truncation was left, is shared_context" in capsys.readouterr().err
    (tmp_path / "out.jsonl.meta.json").unlink()
    assert score(fake, data, output) == 1
    assert "use another output, or remove it" in capsys.readouterr().err
    assert score(fake, data, data) == 1
    assert output.read_bytes() == kept
    assert read(data) == LINES


def test_a_run_that_is_done_adds_nothing(fake: FakeServer, tmp_path: Path) -> None:
    data, output = write(tmp_path / "in.jsonl", LINES), tmp_path / "out.jsonl"
    assert score(fake, data, output) == 0
    whole = output.read_bytes()
    assert score(fake, data, output) == 0
    assert output.read_bytes() == whole


def test_a_server_that_restarts_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: list[dict[str, object]] = [{"text": f"{number} more"} for number in range(2000)]
    data, output = write(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    codes: list[int] = []
    with FakeServer(lambda ids: ids[:, 0] / 100) as server:
        server.delay_s = 0.05
        run = threading.Thread(target=lambda: codes.append(score(server, data, output)))
        run.start()
        assert eventually(lambda: output.exists() and output.stat().st_size > 0)
    said: list[str] = []
    # once the client's own retries are over
    assert eventually(lambda: said.append(capsys.readouterr().err) or "waiting " in "".join(said))
    with FakeServer(lambda ids: ids[:, 0] / 100, port=int(server.url.rpartition(":")[2])):
        run.join()
    assert codes == [0]
    assert rewards(read(output)) == [pytest.approx(wanted(line), rel=1e-6) for line in lines]


def test_a_full_server_is_waited_for(tmp_path: Path) -> None:
    data, output = write(tmp_path / "in.jsonl", LINES * 50), tmp_path / "out.jsonl"

    class Full(FakeServer):
        n_refused = 0

        def ModelInfer(self, request: object, context: grpc.ServicerContext) -> object:  # noqa: N802
            if self.n_refused < 5:
                self.n_refused += 1
                context.abort(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
            return super().ModelInfer(request, context)

    with Full(lambda ids: ids[:, 0] / 100) as server:
        assert score(server, data, output) == 0
        assert server.n_refused == 5
    assert [item["line"] for item in read(output)] == list(range(1, 201))


def test_a_server_that_stays_away_is_given_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "in.jsonl", LINES)
    url = "--url=127.0.0.1:1"
    arguments = ["score", url, f"--input={data}", f"--output={tmp_path / 'out'}", "--patience=0.2"]
    assert main(arguments) == 75
    assert "the same command continues from here" in capsys.readouterr().err


def test_parquet_says_which_extra_it_misses(
    fake: FakeServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "reward_client.bulk.parquet", raising=False)
    data = write(tmp_path / "in.jsonl", LINES)
    assert score(fake, data, tmp_path / "out.parquet") == 1
    assert "pip install 'gpt2-reward[parquet]'" in capsys.readouterr().err
    assert not fake.requests


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input=in.jsonl"], "go together"),
        (["--output=out.jsonl"], "go together"),
        (["in.jsonl", "--input=in.jsonl", "--output=out.jsonl"], "either FILE, or"),
        (["--input=nowhere.jsonl", "--output=out.jsonl"], "cannot read nowhere.jsonl"),
        (["--input=in.jsonl", "--output=no/where.jsonl"], "cannot write no/where.jsonl"),
        (["--format=parquet", "in.jsonl"], "needs --output"),
        (["in.csv"], "in.csv is Parquet, CSV or compressed, which needs --output"),
        (["in.jsonl.gz"], "needs --output"),
    ],
)
def test_wrong_files_are_said_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in.jsonl", LINES)
    assert main(["score", *arguments]) == 1
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("in_flight", [1, 3])
def test_as_many_requests_as_allowed_are_on_their_way(tmp_path: Path, in_flight: int) -> None:
    lock, now, most = threading.Lock(), [0], [0]

    def counted(ids: np.ndarray) -> np.ndarray:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        assert eventually(lambda: most[0] >= in_flight)  # and then a moment for one too many
        time.sleep(0.02)
        with lock:
            now[0] -= 1
        return ids[:, 0] / 100

    data = write(tmp_path / "in.jsonl", [{"text": "a"}] * 2000)
    with FakeServer(counted) as server:
        assert score(server, data, tmp_path / "out.jsonl", f"--in-flight={in_flight}") == 0
    assert most == [in_flight]


def test_reading_stops_while_no_answer_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_read, codes, answers = [0], [], threading.Event()
    parse = lines.from_json

    def counted(number: int, line: bytes, **options: Any) -> lines.Item:
        n_read[0] += 1
        return parse(number, line, **options)

    def held(ids: np.ndarray) -> np.ndarray:
        answers.wait(HUNG_S)
        return ids[:, 0] / 100

    monkeypatch.setattr(lines, "from_json", counted)
    data = write(tmp_path / "in.jsonl", [{"text": "a"}] * 3000)
    with FakeServer(held) as server:
        arguments = (server, data, tmp_path / "out.jsonl", "--in-flight=2")
        run = threading.Thread(target=lambda: codes.append(score(*arguments)))
        run.start()
        before = -1
        while n_read[0] != before or not before:
            before = n_read[0]
            time.sleep(0.3)
        answers.set()
        run.join()
    assert 0 < before <= (2 * 2 + 1) * MAX_ROWS + 1
    assert codes == [0]
    assert n_read == [3000]


def test_another_model_of_the_same_number_does_not_continue_an_output(
    fake: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write(tmp_path / "in.jsonl", LINES), tmp_path / "out.jsonl"
    fake.show(Usage(), sha256="aa")
    assert score(fake, data, out) == 0
    whole = out.read_bytes()
    out.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))  # as if it had been killed
    half = out.read_bytes()
    fake.show(Usage(), sha256="bb")
    assert score(fake, data, out) == 1
    assert "another model answers as version 1" in capsys.readouterr().err
    assert out.read_bytes() == half, "nothing was mixed"
    fake.show(Usage(), sha256="aa")
    assert score(fake, data, out) == 0
    assert out.read_bytes() == whole


def test_a_model_that_is_exchanged_under_its_number_stops_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "HELD_S", 0.0)  # each call asks who answers

    def rewards_of(ids: np.ndarray) -> np.ndarray:
        if len(server.requests) == 3:
            server.show(Usage(), sha256="bb")
        return ids[:, 0]

    data = write(tmp_path / "in.jsonl", [{"text": f"row {n}"} for n in range(60)])
    with FakeServer(rewards_of, max_batch_rows=1) as server:
        server.show(Usage(), sha256="aa")
        assert score(server, data, tmp_path / "out.jsonl", "--in-flight=1") == 1
    assert 0 < len(read(tmp_path / "out.jsonl")) < 60


@pytest.mark.parametrize("first", ["aa", None])
def test_an_output_of_an_unknown_model_is_continued(
    fake: FakeServer, tmp_path: Path, first: str | None
) -> None:
    """If the server or the output does not name the model, the version number decides."""
    data, out = write(tmp_path / "in.jsonl", LINES), tmp_path / "out.jsonl"
    for sha256 in (first, "aa" if first is None else None):
        fake.config.parameters.pop("version.1", None)
        if sha256 is not None:
            fake.show(Usage(), sha256=sha256)
        assert score(fake, data, out) == 0
        whole = out.read_bytes()
        out.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    assert score(fake, data, out) == 0
    assert out.read_bytes() == whole


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz"])
def test_fixed_lines_are_not_scored_by_another_model_of_the_same_number(
    fake: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    data, out = write(tmp_path / "in.jsonl", [*LINES, {"text": 7}]), tmp_path / f"out.{ending}"
    options = ("--rescore-rejected", "--max-rejected=0.5")
    fake.show(Usage(), sha256="aa")
    assert score(fake, data, out, *options[1:]) == 0
    first = out.read_bytes()
    write(data, [*LINES, {"text": "Hi"}])
    fake.show(Usage(), sha256="bb")
    assert score(fake, data, out, *options) == 1
    assert "another model answers as version 1" in capsys.readouterr().err
    assert out.read_bytes() == first
    fake.show(Usage(), sha256="aa")
    assert score(fake, data, out, *options) == 0
    assert out.read_bytes() != first
    known = json.loads((tmp_path / f"out.{ending}.meta.json").read_bytes())["model"]
    assert known["version"] == 1, "the next run knows the model as well"


def test_an_output_says_what_made_it(fake: FakeServer, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="needs gpt2-reward[parquet]")
    usage = Usage(FORMATS["lines"], 100, Calibration(2.0))
    fake.show(usage, source="hub/model", precision="int8", sha256="aa")
    data = write(tmp_path / "in.jsonl", LINES)
    for ending in ("jsonl", "parquet"):
        assert score(fake, data, tmp_path / f"out.{ending}", "--truncation=shared_context") == 0
        known = json.loads((tmp_path / f"out.{ending}.meta.json").read_bytes())
        model = known["model"]
        assert (model["version"], model["precision"], model["source"]) == (1, "int8", "hub/model")
        assert len(model["sha256"]) == 64
        assert model["usage"] == Usage(FORMATS["lines"], 100).as_json()
        assert known["library"] == f"gpt2-reward {version('gpt2-reward')}"
        assert known["model_name"] == "gpt2_reward"
    metadata = pq.read_schema(tmp_path / "out.parquet").metadata
    named = ("library", "model_name", "model", "truncation", "chat_format")
    assert json.loads(metadata[b"gpt2_reward"]) == {name: known[name] for name in named}


def test_an_output_of_rejected_lines_says_what_made_it_once_they_are_fixed(
    fake: FakeServer, tmp_path: Path
) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="needs gpt2-reward[parquet]")
    fake.show(Usage(), source="hub/model")
    data, out = write(tmp_path / "in.jsonl", [{"text": 7}]), tmp_path / "out.parquet"
    options = ("--rescore-rejected", "--max-rejected=1")
    assert score(fake, data, out) == 65
    write(data, [{"text": "Hi"}])
    assert score(fake, data, out, *options) == 0
    known = json.loads((tmp_path / "out.parquet.meta.json").read_bytes())
    made_by = json.loads(pq.read_schema(out).metadata[b"gpt2_reward"])
    assert made_by["model"]["source"] == known["model"]["source"] == "hub/model"


def test_without_digests_models_of_other_names_do_not_continue_an_output(
    fake: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write(tmp_path / "in.jsonl", LINES), tmp_path / "out.jsonl"
    assert score(fake, data, out) == 0
    known = (tmp_path / "out.jsonl.meta.json").read_bytes()
    fake.config.name = "other"
    assert score(fake, data, out, "--model=other") == 1
    assert "model_name was gpt2_reward, is other" in capsys.readouterr().err
    assert (tmp_path / "out.jsonl.meta.json").read_bytes() == known


def test_a_format_that_changes_no_row_does_not_stop_a_run(fake: FakeServer, tmp_path: Path) -> None:
    data = write(tmp_path / "in.jsonl", LINES)
    for usages, own in (
        ((Usage(FORMATS["lines"]), Usage(FORMATS["chai"])), ["--chat-format=lines"]),
        ((Usage(), Usage(FORMATS["chai"])), []),  # until now, there were only texts
    ):
        out = tmp_path / f"out{len(own)}.jsonl"
        fake.show(usages[0])
        assert score(fake, data, out, *own) == 0
        whole = out.read_bytes()
        out.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
        fake.show(usages[1])
        assert score(fake, data, out, *own) == 0
        assert out.read_bytes() == whole


@pytest.mark.parametrize("other", [Usage(FORMATS["lines"], 100), Usage(FORMATS["chai"])])
def test_a_model_that_reads_text_differently_does_not_continue_an_output(
    fake: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], other: Usage
) -> None:
    data, out = write(tmp_path / "in.jsonl", LINES), tmp_path / "out.jsonl"
    fake.show(Usage(FORMATS["lines"]))
    assert score(fake, data, out) == 0
    whole = out.read_bytes()
    out.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    fake.show(other)
    assert score(fake, data, out) == 1
    assert "has rewards of version 1 with a window of 256 tokens" in capsys.readouterr().err
    fake.show(Usage(FORMATS["lines"], calibration=Calibration(2.0)))  # changes no reward
    assert score(fake, data, out) == 0
    assert out.read_bytes() == whole
