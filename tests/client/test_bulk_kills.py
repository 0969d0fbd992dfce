"""Shards whose run is killed; `python tests/bulk_kills.py 100` kills 100 runs."""

import sys

import pytest

pytest.importorskip("pyarrow", reason="needs gpt2-reward[parquet]")
if sys.platform != "linux":
    pytest.skip("needs /proc", allow_module_level=True)

from bulk_kills import kill_and_compare


def test_shards_whose_run_is_killed_anywhere_come_out_the_same() -> None:
    said: list[str] = []
    found = kill_and_compare(4, 1, said.append)
    assert found["identical"] == 4, said
    assert found["had been complete"] < 4, said
