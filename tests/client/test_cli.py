"""The commands, as a shell sees them."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reward_client import Tokenizer
from reward_client.cli import main
from reward_client.testing import FakeServer

COMMAND = Path(sys.executable).with_name("gpt2-reward")


def rewards(texts: list[str]) -> list[float]:
    return [float(x) for x in Tokenizer().encode_rows(texts)[:, 0] / np.float32(100)]


def score(fake: FakeServer, monkeypatch: pytest.MonkeyPatch, data: bytes, *arguments: str) -> int:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    return main(["score", f"--url={fake.url}", *arguments])


def test_score_prints_one_reward_a_line_and_nothing_else(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(fake, monkeypatch, b"Hi\n\nHello there\r\nlast") == 0
    output = capsys.readouterr().out.splitlines()
    assert [np.float32(line) for line in output] == np.float32(
        rewards(["Hi", "", "Hello there", "last"])
    ).tolist()


def test_only_the_line_break_is_taken_off(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert score(fake, monkeypatch, b" a \r\n\tb\r\r\nc\r") == 0
    np.testing.assert_array_equal(
        np.concatenate(fake.requests), Tokenizer().encode_rows([" a ", "\tb\r", "c\r"])
    )


def test_lines_that_could_not_be_scored_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def rewards(ids: np.ndarray) -> np.ndarray:
        return np.where(ids[:, 0] == 17250, np.nan, 1.0)

    with FakeServer(rewards) as fake:
        assert score(fake, monkeypatch, b"a\n" * 300 + b"Hi\nb\nHi\n") == 1
    captured = capsys.readouterr()
    assert captured.out == "1\n" * 256  # of the first call
    assert captured.err == (
        "gpt2-reward score: lines 301, 303 could not be scored (NaN or infinity)\n"
    )


def test_score_streams_in_more_than_one_call(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [str(number) for number in range(600)]
    assert score(fake, monkeypatch, "\n".join(texts).encode()) == 0
    found = [float(line) for line in capsys.readouterr().out.split()]
    np.testing.assert_allclose(found, rewards(texts), rtol=1e-6)


def test_score_reads_jsonl_files(
    fake: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "two\\nlines", "id": 7}\n{"text": ""}\n')
    assert main(["score", f"--url={fake.url}", str(file)]) == 0
    found = [float(line) for line in capsys.readouterr().out.split()]
    np.testing.assert_allclose(found, rewards(["two\nlines", ""]), rtol=1e-6)


@pytest.mark.parametrize(
    ("data", "arguments", "message"),
    [
        (b'{"text": "a"}\nnot json\n', ["--format=jsonl"], "line 2: not JSON"),
        (b'{"txt": "a"}\n', ["--format=jsonl"], 'line 1: expected "text", or'),
        (b'{"text": 7}\n', ["--format=jsonl"], 'line 1: "text" is int, not a string'),
        (b"fine\nfine\n\xff\n", [], "line 3: not UTF-8"),
        (
            b'{"text": "a"}\n{"text": "\\ud800"}\n',
            ["--format=jsonl"],
            'line 2: "text" holds a lone',
        ),
        (b"[" * 100_000, ["--format=jsonl"], "line 1: unreadable JSON"),
        (
            b'{"text": "a"}\n' * 300 + b'{"text": "\\ud800"}',
            ["--format=jsonl"],
            'line 301: "text" holds',
        ),
    ],
)
def test_malformed_input_is_reported_by_its_line(
    fake: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    data: bytes,
    arguments: list[str],
    message: str,
) -> None:
    assert score(fake, monkeypatch, data, *arguments) == 1
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


def test_a_byte_order_mark_and_every_form_of_one_text_are_read_as_in_bulk(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b'\xef\xbb\xbf{"text": "Hi"}\r\n{"context": "Hi", "candidate": " you"}\n'
    assert score(fake, monkeypatch, data, "--format=jsonl") == 0
    assert score(fake, monkeypatch, b"\xef\xbb\xbfHi\r\n") == 0
    found = np.concatenate(fake.requests)
    np.testing.assert_array_equal(found, Tokenizer().encode_rows(["Hi", "Hi you", "Hi"]))
    assert score(fake, monkeypatch, b'{"context": "", "candidates": ["a"]}', "--format=jsonl") == 1


def test_rank_prints_a_table_with_the_best_marked(
    fake: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rank", f"--url={fake.url}", "--context", "", "Hello", "Hi\nyou"]) == 0
    assert capsys.readouterr().out == ("*  1  +172.5000  Hi you\n   2  +154.9600  Hello\n")


def test_rank_prints_json_for_programs(
    fake: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rank", f"--url={fake.url}", "--json", "--context", "", "Hello", "Hi"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"text": "Hi", "reward": 172.5, "index": 1, "probability": 1.0},
        {"text": "Hello", "reward": pytest.approx(154.96), "index": 0, "probability": 1.0},
    ]


def test_errors_take_one_line_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "/no/such/file"]) == 1
    assert capsys.readouterr().err == (
        "gpt2-reward score: cannot read /no/such/file: No such file or directory\n"
    )


def test_a_command_says_which_extra_it_misses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith("reward_export")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["export", "somewhere"]) == 1
    assert "pip install 'gpt2-reward[export]'" in capsys.readouterr().err


def test_without_a_command_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "rank" in capsys.readouterr().err


def test_a_reader_that_leaves_early_is_no_error(fake: FakeServer) -> None:
    pipe = f"yes Hi | head -n 3000 | {COMMAND} score --url={fake.url} | head -n 1"
    done = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True, check=True)
    assert done.stdout == "172.5\n"
    assert done.stderr == ""


def test_control_characters_do_not_reach_the_terminal(
    fake: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rank", f"--url={fake.url}", "--context=", "a\x1b[2Jb\u202ec"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("a [2Jb c")


def test_headers_and_several_servers_from_the_command_line(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOKEN", "Bearer 7f3a")
    options = [f"--url={fake.url}", f"--url=ipv4:{fake.url}", "--header-env=authorization=TOKEN"]
    options += ["--priority=bulk", "--truncation=shared_context"]
    assert main(["rank", *options, "--context=a", "b"]) == 0
    assert fake.headers[-1]["authorization"] == "Bearer 7f3a"
    assert fake.parameters[-1]["priority"] == 2
    assert "7f3a" not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tls-certificate=c.pem"], "go together"),
        (["--tls-roots=/nowhere.pem"], "/nowhere.pem"),
        (["--header-env=authorization=ABSENT"], "no environment variable 'ABSENT'"),
        (["--url=a:1", "--url=a:1"], "different addresses"),
        (["--header-env=Authorization=PATH"], "header names are made of"),
    ],
)
def test_senseless_connections_are_said_in_one_line(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rank", *options, "--context=a", "b"]) == 1
    assert message in capsys.readouterr().err


def test_a_choice_without_effect_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", str(tmp_path / "in.txt"), "--truncation=shared_context"]) == 1
    assert "is for groups" in capsys.readouterr().err
