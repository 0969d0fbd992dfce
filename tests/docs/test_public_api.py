"""No public name, parameter, default or annotation changes unnoticed."""

import difflib
from pathlib import Path

import pytest

pytest.importorskip("griffe", reason="needs gpt2-reward[docs]")
import public_api

SNAPSHOT = Path(__file__).parent / "public_api.txt"


def test_public_names_have_the_signatures_of_the_snapshot() -> None:
    expected, found = SNAPSHOT.read_text("utf-8").splitlines(), list(public_api.lines())
    diff = difflib.unified_diff(expected, found, "public_api.txt", "the source", lineterm="", n=4)
    changes = "\n".join(diff)
    assert not changes, (
        "The public API changed. If that is intended, run `make api` and add a line to "
        f"CHANGELOG.md (docs/api.md says what may change when).\n{changes}"
    )


def test_the_snapshot_has_parameters_fields_and_results() -> None:
    lines = SNAPSHOT.read_text("utf-8").splitlines()
    assert "def reward_client.RewardClient.rank -> Ranking" in lines
    assert "    on_error: OnError = 'raise' (by keyword)" in lines
    assert "value reward_client.RankedCandidate.reward: float" in lines
    assert "async def reward_client.rl.verl.compute_score -> float" in lines
