"""The suite that tries the graphs for GPUs: its steps, its predictions, a run on a CPU."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from reward_bench.provider.batches import best_of_4, cases
from reward_bench.provider.bench import Bench
from reward_bench.provider.debug import said_of_attention
from reward_bench.provider.grid import can_be_scored, grid
from reward_bench.provider.parts import STEPS, every_batch, kernels_alone
from reward_bench.provider.predictions import Predictions
from reward_bench.provider.roofline import GPUS, Model, gpu_named, guesses, plan, seconds
from reward_bench.provider.steps import Step, in_time
from reward_bench.provider.table import as_json, as_text, lines
from reward_bench.report import provider as provider_report
from reward_bench.suite import Setting
from reward_bench.workloads import n_unique

MEDIUM = Model(24, 1024)


def test_the_suite_runs_on_a_cpu(tmp_path: Path) -> None:
    small = ["--seconds=0.02", "--rounds=2", "--provider-batches=40", "--provider-limit=3000"]
    options = ["--quick", *small, f"--output={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "reward_bench", "provider", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads((tmp_path / "provider-tiny.json").read_text())
    assert found["failed"] == [], done.stderr[-3000:]
    assert done.returncode == 0, done.stderr[-3000:]
    steps = {name: step["found"] for name, step in found["steps"].items()}
    assert list(steps) == list(STEPS)
    answered = steps["every batch"]["fp16 padded"]
    assert answered["failed"] == {}
    assert answered["batches"] > 60
    assert 0 < steps["parity"]["fp16 padded"]["max_difference"] < 0.05
    assert steps["throughput"]["fp16 padded"]["best_of_4"]["p99"] > 0
    assert len(steps["memory"]["fp16 padded"]["seen"]) == 10
    assert steps["Triton"]["golden_rows_right"] == steps["Triton"]["golden_rows"] > 0
    section = provider_report.section(found)
    for what in ("batches answered, fp16 padded | 79 of 79", "gather alone", "golden rows right"):
        assert what in section


def test_without_its_device_each_measurement_is_an_error_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    bench = Bench(Setting(shape="tiny", device="cuda"), tmp_path, 1, 300)
    found = every_batch(bench)
    assert set(found) == {"fp32 padded", "fp16 padded", "fp16 varlen"}
    assert all("CUDAExecutionProvider" in figures["error"] for figures in found.values())
    assert all("error" in figures for figures in kernels_alone(bench).values())
    table = lines({"every batch": {"found": found}, "device": {"error": "there is none"}})
    assert [line.is_right for line in table] == [False] * 4


def test_steps_that_hang_crash_or_raise_leave_the_others_alone(tmp_path: Path) -> None:
    steps = [
        Step("hangs", time.sleep, 0.01),
        Step("raises", len, 0.33),
        Step("crashes", os._exit, 0.33),
        Step("answers", str, 0.33),
    ]
    found = in_time(steps, 1000, tmp_path, 200.0)
    assert found["hangs"]["error"] == "stopped after 2 s, all the time that it had"
    assert found["raises"]["error"] == "TypeError: object of type 'int' has no len()"
    assert found["crashes"]["error"] == "its process ended with exit code 232"
    assert found["answers"]["found"] == "1000"
    table = as_text(as_json(lines(found)))
    assert "| hangs | - | - | stopped after 2 s" in table
    assert table.count("**wrong**") == 3


def test_shares_of_the_time_leave_none_of_it_over() -> None:
    assert sum(share for _function, share in STEPS.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("gpu", "case", "rows_per_s"),
    [
        # computed beforehand by other code from bytes, operations and launches of the same graph
        ("H200", "128 rows of chats", 7802),
        ("H200", "128 full rows", 2768),
        ("H200", "8 full rows", 2668),
        ("A100", "128 rows of chats", 3491),
        ("L4", "256 full rows", 234),
    ],
)
def test_predictions_are_those_of_the_budget(gpu: str, case: str, rows_per_s: int) -> None:
    rows, known = cases()[case], GPUS[gpu]
    taken = seconds(known, guesses(known), MEDIUM, "varlen", plan(rows, "varlen"))
    assert len(rows) / taken == pytest.approx(rows_per_s, rel=0.01)


def test_plans_have_the_tokens_that_differ() -> None:
    for rows in (*cases().values(), best_of_4(1)[0]):
        padded, varlen = plan(rows, "padded"), plan(rows, "varlen")
        assert padded.n_tokens == varlen.n_tokens == n_unique(rows)
        assert padded.n_queries >= padded.n_tokens
        assert padded.pairs >= varlen.pairs > 0


def test_measured_kernels_correct_the_prediction() -> None:
    alone = {"product_tflops": 632.0, "gather_gbs": 2400.0, "varlen_attention_tflops": 160.0}
    found = {
        "device": {"name": "NVIDIA H200"},
        "graphs": {"n_layer": 24, "n_embd": 1024},
        "kernels alone": {name: {"value": value} for name, value in alone.items()},
    }
    rows = cases()["128 full rows"]
    by_guess, by_measured = Predictions(found).ms(rows, "fp16 varlen")
    assert by_guess == pytest.approx(by_measured)  # what was measured is what was guessed
    found["kernels alone"]["product_tflops"] = {"value": 316.0}
    _, slower = Predictions(found).ms(rows, "fp16 varlen")
    assert by_guess is not None
    assert slower is not None
    assert 1.5 * by_guess < slower < 2 * by_guess
    assert Predictions(found).ms(rows, "fp16 padded")[1] is None  # its kernel was not measured
    unknown = {**found, "device": {"name": "NVIDIA GeForce GTX 280"}}
    assert Predictions(unknown).ms(rows, "fp16 varlen") == (None, None)


def test_gpus_are_known_by_the_drivers_names() -> None:
    assert gpu_named("NVIDIA A100-SXM4-80GB") is GPUS["A100"]
    assert gpu_named("NVIDIA H100 80GB HBM3") is GPUS["H100 80GB HBM3"]
    assert gpu_named("NVIDIA L40S") is None


def test_kernels_of_attention_are_read_as_onnx_runtime_prints_them() -> None:
    with said_of_attention() as found:
        os.write(1, b"AttentionKernelOptions: FLASH_ATTENTION=1 EFFICIENT_ATTENTION=1 MATH=0\n")
        os.write(1, b"\x1b[36mOperator=MultiHeadAttention Node=n DataType=fp16 MATH=1\x1b[0m\n")
        os.write(1, b"Operator=MultiHeadAttention DataType=fp16 SdpaKernel=EFFICIENT_ATTENTION\n")
    assert found == {"MATH": 1, "EFFICIENT_ATTENTION": 1}


def test_rows_without_a_reward_are_known() -> None:
    batches = grid()
    assert can_be_scored(batches["poisoned"]).tolist() == [True, False, False, *[True] * 5]
    assert can_be_scored(batches["too long"]).tolist() == [True, False, True]
    assert not can_be_scored(batches["all poisoned"]).any()
    assert can_be_scored(batches["pads alone"]).all()
    assert can_be_scored(np.zeros((2, 0), np.int32)).all()
