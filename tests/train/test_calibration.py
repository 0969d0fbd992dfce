"""Probabilities fitted to held-out labels: the fit, and the command."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from reward_client.cli import main
from reward_client.testing import FakeServer
from reward_text import FORMATS, Calibration, Tokenizer, Usage
from reward_train.errors import TrainError
from reward_train.evaluate.calibration import fitted

pytest.importorskip("sklearn", reason="needs gpt2-reward[evaluate]")

TRUE = Calibration(0.5, -1.0)


def rewards_of(ids: NDArray[np.int32]) -> NDArray[np.float32]:
    """Rewards from -4 to 4 by the last token; the digits are tokens 15 to 24."""
    last = ids[np.arange(len(ids)), (ids != 50256).sum(1) - 1]
    return ((last.astype(np.float32) - 19.5) / 4.5 * 4).astype(np.float32)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(rewards_of, usage=Usage(FORMATS["verbatim"])) as fake:
        yield fake


def write_rows(file: Path, n: int = 4000) -> Path:
    """Write rows whose labels follow `TRUE`, for a model whose own probabilities are too sure."""
    draw = np.random.default_rng(0)
    rewards = rewards_of(np.array([[15 + i % 10] for i in range(n)], np.int32))
    accepted = draw.random(n) < TRUE.probabilities(rewards)
    with file.open("w") as out:
        for i in range(n):
            row = {"context": f"{i} =", "candidate": str(i % 10), "retry": not bool(accepted[i])}
            row["remaining_user_messages"] = 5 if accepted[i] or i % 3 else 0
            if not accepted[i] and i % 2:  # half of them were not retried: the user left
                row |= {"retry": False, "remaining_user_messages": 1}
            out.write(json.dumps(row) + "\n")
    return file


def test_the_fit_finds_the_calibration_that_made_the_labels() -> None:
    draw = np.random.default_rng(1)
    rewards = draw.normal(0, 3, 50_000).astype(np.float32)
    labels = (draw.random(50_000) < TRUE.probabilities(rewards)).astype(np.float64)
    found = fitted(rewards, labels)
    assert found.scale == pytest.approx(TRUE.scale, rel=0.05)
    assert found.bias == pytest.approx(TRUE.bias, abs=0.05)
    with pytest.raises(TrainError, match="lower rewards are accepted more often"):
        fitted(-rewards, labels)
    with pytest.raises(TrainError, match="all labelled alike"):
        fitted(rewards, np.ones(50_000))


def test_the_command_prints_what_it_fits_and_how_good_it_is(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl")
    assert main(["evaluate", f"--calibrate={rows}", f"--url={server.url}"]) == 0
    *told, last = capsys.readouterr().out.splitlines()
    found = Usage.from_json(json.loads(last)).calibration
    assert found.scale == pytest.approx(TRUE.scale, rel=0.15)
    assert found.bias == pytest.approx(TRUE.bias, abs=0.15)
    text = "\n".join(told)
    assert "4,000 labelled rows" in text
    assert "against ended: 0." in text
    assert "against retry: 0." in text
    before, after = (float(text.split(what)[0].split()[-1]) for what in (" as served", " with it"))
    assert before > 0.1
    assert after < 0.04


def test_messages_as_context_are_asked_in_the_models_format(
    server: FakeServer, tmp_path: Path
) -> None:
    rows = [
        {
            "context": [{"role": "user", "content": f"{i} ="}],
            "candidate": str(i % 10),
            "label": int(i % 10 > 4) ^ int(i % 7 == 0),
        }
        for i in range(400)
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["evaluate", f"--calibrate={file}", f"--url={server.url}"]) == 0
    sent = {tuple(row) for request in server.requests for row in request.tolist()}
    wanted = Tokenizer().encode_rows([f"{i} ={i % 10}" for i in range(400)])
    assert sent == {tuple(row) for row in wanted.tolist()}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[]", "line 2 is not a labelled row"),
        ("{", "line 2 is not a labelled row: Expecting"),
        ('{"context": "a", "candidate": "b"}', 'line 2 is not a labelled row: no "label"'),
        ('{"context": "a", "candidate": 7, "label": 1}', "is not a text"),
        ('{"candidate": "b", "label": 1}', "line 2 is not a labelled row: 'context'"),
    ],
)
def test_a_line_that_is_no_row_is_named(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, reason: str
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"context": "a", "candidate": "b", "label": 1}\n' + line)
    assert main(["evaluate", f"--calibrate={file}", f"--url={server.url}"]) == 1
    assert reason in capsys.readouterr().err
    assert server.requests == []


def test_there_has_to_be_something_to_evaluate(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--url=localhost:1"]) == 1
    assert "nothing to evaluate" in capsys.readouterr().err


def test_a_server_that_does_not_say_what_it_serves_calibrates_no_repository(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.config.parameters.pop("version.1")
    rows = write_rows(tmp_path / "rows.jsonl", 200)
    words = [f"--calibrate={rows}", f"--repository={tmp_path}", f"--url={server.url}"]
    assert main(["evaluate", *words]) == 1
    assert "does not say which model it serves" in capsys.readouterr().err
