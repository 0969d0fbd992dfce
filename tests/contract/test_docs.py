"""Pages that are written from files say what the files say; links lead to files."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md")]


def test_benchmarks_are_those_of_the_result_files() -> None:
    pytest.importorskip("matplotlib", reason="needs gpt2-reward[bench]")
    command = [sys.executable, "-m", "reward_bench.report", "--written"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_sizing_is_computed_from_the_result_files() -> None:
    shapes = ("small-avx512", "medium", "small")
    results = {
        shape: json.loads((ROOT / "bench" / "results" / f"graph-{shape}.json").read_text())
        for shape in shapes
    }
    page = (ROOT / "docs" / "operations.md").read_text()
    for label, workload, n_rows in (
        ("best-of-8, 160 shared tokens", "a", 8),
        ("best-of-4, 128 shared tokens", "b", 4),
        ("full rows, nothing shared", "d", 8),
    ):
        fastest_ms = [
            results[shape]["workloads"][workload]["engines"][engine]["ms_min"]
            for shape in shapes
            for engine in ("ours", "ours-int8")
        ]
        cells = [f"{n_rows / ms * 1e3:.1f}" for ms in fastest_ms]
        assert f"| {label} | {' | '.join(cells)} |" in page


def test_errors_of_the_residual_stream_are_those_of_the_result_file() -> None:
    stream = pytest.importorskip(
        "reward_bench.suites.stream", reason="needs gpt2-reward[bench]", exc_type=ImportError
    )
    report = json.loads((ROOT / "bench" / "results" / "stream.json").read_text())
    page = (ROOT / "docs" / "precision.md").read_text()
    assert "\n".join(map(stream.line, report["checkpoints"])) in page
    assert f"{report['layers']} layers of {report['hidden']}" in page
    assert f"of {report['rows']} real rewards" in page
