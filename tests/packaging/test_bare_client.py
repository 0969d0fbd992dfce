"""The bare install, with the dependencies that pip finds for it, in an empty folder."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from environments import ROOT, make_environment, shell_environment, where_packages_are_from

from reward_client import CONTRACT
from reward_client.testing import FakeServer


@pytest.fixture(scope="module")
def commands(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    commands = make_environment(tmp_path_factory.mktemp("bare") / "environment")
    (wheel,) = distributions.glob("*.whl")
    constraints = f"--constraint={ROOT / 'constraints.txt'}"
    subprocess.run(
        [str(commands / "pip"), "install", "--quiet", constraints, str(wheel)], check=True
    )
    return commands


def run(
    commands: Path, folder: Path, *arguments: str, text: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["gpt2-reward", *arguments],
        capture_output=True,
        text=True,
        check=False,
        input=text,
        cwd=folder,
        env=shell_environment(commands),
    )


def test_nothing_comes_from_the_checkout(commands: Path, tmp_path: Path) -> None:
    found = where_packages_are_from(commands, tmp_path)
    assert [path for path in found if Path(path).is_relative_to(ROOT)] == []


def test_rank_score_and_evaluate_work(commands: Path, tmp_path: Path) -> None:
    group = {"context": "", "candidates": ["Hello", "Hi"], "best": 1}
    (tmp_path / "groups.jsonl").write_text(f"{json.dumps(group)}\n")
    with FakeServer(lambda ids: ids[:, 0] / np.float32(CONTRACT.vocab_size)) as server:
        url = f"--url={server.url}"
        ranked = run(commands, tmp_path, "rank", url, "--json", "--context", "", "Hello", "Hi")
        assert ranked.returncode == 0, ranked.stderr
        assert [one["text"] for one in json.loads(ranked.stdout)] == ["Hi", "Hello"]
        scored = run(commands, tmp_path, "score", url, text="Hello\nHi\n")
        assert scored.returncode == 0, scored.stderr
        expected = [15496 / CONTRACT.vocab_size, 17250 / CONTRACT.vocab_size]
        np.testing.assert_allclose(np.array(scored.stdout.split(), float), expected, rtol=1e-6)
        judged = run(commands, tmp_path, "evaluate", url, "groups.jsonl")
        assert judged.returncode == 0, judged.stderr
        assert "1 groups" in judged.stdout


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["export", "anything"], "export"),
        (["rows", "rows", "--chitchat"], "chitchat"),
        (["train", "rows.jsonl", "--base=gpt2", "--output=trained"], "train"),
        (["gateway"], "gateway"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_needs_more_names_its_extra(
    commands: Path, tmp_path: Path, arguments: list[str], extra: str
) -> None:
    done = run(commands, tmp_path, *arguments)
    assert done.returncode == 1
    assert done.stderr.endswith(f"pip install 'gpt2-reward[{extra}]'\n")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
