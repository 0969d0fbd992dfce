"""Suites import shared code, nothing imports a suite, and one entry point runs all of them."""

import argparse
import ast
import json
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from reward_bench import engines, options, runner
from reward_bench.engines import Spec
from reward_bench.suite import Suite
from reward_contract import INPUT_IDS, MODEL_NAME

BENCH = Path(__file__).parents[2] / "bench"
SUITES = runner.known_suites()
NAMES = [suite.name for suite in SUITES]


def imported(module: Path) -> Iterator[str]:
    """Dotted names of everything a module imports; a name from a package may be a module."""
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", sorted(BENCH.rglob("*.py")), ids=lambda path: path.stem)
def test_nothing_imports_a_suite(module: Path) -> None:
    assert not [name for name in imported(module) if name.startswith("reward_bench.suites.")]


def test_every_module_of_the_folder_is_a_suite() -> None:
    modules = {path.stem for path in (BENCH / "reward_bench" / "suites").glob("*.py")}
    assert {*NAMES, "__init__"} == modules


def test_the_folder_on_the_path_holds_one_package() -> None:
    importable = [path.parent.name for path in BENCH.glob("*/*.py")]
    assert set(importable) == {"reward_bench"}
    assert not list(BENCH.glob("*.py"))


def test_a_rival_finds_nothing_of_ours_beside_the_worker() -> None:
    beside = {path.name for path in engines.WORKER.parent.iterdir()} - {"__pycache__"}
    assert beside == {"__init__.py", "__main__.py"}
    ours = {name for name in imported(engines.WORKER) if name.startswith("reward_")}
    assert not ours


def test_the_worker_runs_where_the_project_is_not_installed(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.create(tmp_path / "rival", symlinks=True)
    python = str(tmp_path / "rival" / "bin" / "python")
    # only libraries: the .pth file that installs the project is not read from there
    monkeypatch.setenv("PYTHONPATH", sysconfig.get_path("purelib"))
    alone = subprocess.run(
        [python, "-c", "import numpy, reward_bench"], capture_output=True, check=False
    )
    assert b"No module named 'reward_bench'" in alone.stderr
    rows = np.array([[15496, 612], [15496, 50256]], np.int32)
    requests = [(rows, np.array([2, 1])), (rows[1:], np.array([1]))]
    engines.write_requests(tmp_path / "arrays.npz", {"pair": requests})
    model = repository / MODEL_NAME / "1" / "model.onnx"
    engine = engines.start(Spec("rival", python, "onnx", model), tmp_path / "arrays.npz", 1)
    try:
        engine.wait_until_ready()
        answer = engine.ask("pair")
    finally:
        engine.kill()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    wanted = session.run(None, {INPUT_IDS.name: rows})[0][:, 0]
    assert answer.rewards == pytest.approx([*wanted, wanted[1]], abs=1e-5)
    assert answer.processor_seconds > 0


def parsed(*arguments: str) -> argparse.Namespace:
    return options.parser(SUITES, None).parse_args(arguments)


def suite(name: str) -> Suite[Any]:
    return next(suite for suite in SUITES if suite.name == name)


def test_a_suites_defaults_give_way_to_quick_and_both_to_options() -> None:
    client, delay = suite("client"), suite("queue_delay")
    assert options.own_of(client, parsed("client")).calls == 2_000
    assert options.own_of(client, parsed("client", "--quick")).calls == 200
    assert options.own_of(client, parsed("client", "--quick", "--client-calls=7")).calls == 7
    assert options.setting_of(delay, parsed("queue_delay")).rounds == 5
    quick = options.setting_of(delay, parsed("queue_delay", "--quick", "--seconds=0.1"))
    assert (quick.shape, quick.rounds, quick.seconds) == ("tiny", 2, 0.1)


def test_a_gpu_is_asked_for_half_precision_unless_told() -> None:
    server = suite("server")
    assert options.setting_of(server, parsed("server", "--device=cuda")).precision == "fp16"
    told = parsed("server", "--device=cuda", "--precision=fp32")
    assert options.setting_of(server, told).precision == "fp32"


def test_values_of_an_option_are_of_its_kind() -> None:
    given = parsed("bulk", "--bulk-rows", "5", "6", "--bulk-formats", "jsonl")
    own = options.own_of(suite("bulk"), given)
    assert (own.rows, own.formats) == ((5, 6), ("jsonl",))


def test_options_that_no_suite_asked_for_takes_are_found() -> None:
    given = parsed("linear", "--device=cuda", "--rounds=1", "--client-calls=3", "--peers-make")
    assert list(options.unused(given, SUITES)) == ["--device", "--client-calls", "--peers-make"]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "reward_bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_suites_that_need_no_server_run_one_after_the_other(tmp_path: Path) -> None:
    small = ["--rounds=1", "--linear-rows=8", "--truncation-groups=1", "--bulk-rows=20"]
    small += ["--stream-factors=1000", "--stream-groups=1"]
    names = ("linear", "bulk", "stream", "truncation", "gateway")
    done = bench(*names, "--quick", *small, f"--output={tmp_path}")
    assert done.returncode == 0, done.stderr[-2000:]
    found = {path.name: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert set(found) == {f"{name}.json" for name in names}
    assert found["gateway.json"]["2 callers"]["processor_ms_a_request"] > 0
    assert found["linear.json"]["rounds"] == 1
    assert {name for name in found["bulk.json"] if " " in name} == {"jsonl 20", "parquet 20"}
    stays, _taken_back = found["stream.json"]["checkpoints"]
    float16, float32 = (stays[stream]["max_error_in_stds"] for stream in ("float16", "float32"))
    assert float16 > float32 > 0
    assert not stays["float16"]["passes"]
    assert found["truncation.json"]["checkpoint"] == "random weights, 2 layers of 64"


def test_a_suite_that_fails_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    given = ["--quick", "--checkpoint=/nowhere", f"--output={tmp_path}"]
    done = bench("truncation", "linear", *given)
    assert done.returncode == 1
    assert "/nowhere" in done.stderr
    assert "truncation ended with exit code 1" in done.stderr
    assert not list(tmp_path.iterdir())
