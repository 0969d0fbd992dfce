"""A result file carries a fingerprint of the code that it measured."""

import json
from pathlib import Path

import pytest

from reward_bench import fingerprint as module
from reward_bench.fingerprint import fingerprint
from reward_bench.report import __main__ as report
from reward_bench.runner import known_suites, measured_by

CODE = 'def twice(x):\n    """Two of them."""\n    return 2 * x\n'


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "code.py").write_text(CODE)
    return tmp_path / "code.py"


def test_only_what_code_does_counts(file: Path) -> None:
    before = fingerprint(["code.py"])
    file.write_text(CODE.replace("Two of them.", "The double.").replace("2 * x", "2 * x  # why"))
    assert fingerprint(["code.py"]) == before
    file.write_text(CODE.replace("2 * x", "x + x"))
    assert fingerprint(["code.py"]) != before


def test_a_path_that_is_gone_is_an_error(file: Path) -> None:
    with pytest.raises(FileNotFoundError, match="name what the suite measures now"):
        fingerprint([file.name, "moved.py"])


def test_a_result_of_other_code_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    for suite in known_suites():  # every path that they name exists
        result = {"code": fingerprint(measured_by(suite))}
        (tmp_path / suite.file.format(shape="small")).write_text(json.dumps(result, indent=1))
    assert report.old() == []
    (tmp_path / "client.json").write_text(json.dumps({"code": "0"}))
    (tmp_path / "linear.json").write_text("[]")
    assert report.old() == ["client.json", "linear.json"]
