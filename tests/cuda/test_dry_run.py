"""The graphs for GPUs on the real CUDA provider, with stand-ins for NVIDIA's libraries."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from cuda_dry_run import stand_ins
from cuda_dry_run.drive import dry_run
from cuda_dry_run.report import violations

from reward_bench.provider.cuda import cuda_options
from reward_bench.provider.grid import grid
from reward_export import attention
from reward_export.checkpoint import load
from reward_export.precision import CUDA_OPTIONS, PRECISIONS, Form
from reward_export.random_checkpoint import random_checkpoint

RUNTIMES = Path(sys.prefix) / "onnxruntimes-gpu"
VERSIONS = ("1.24.4", "1.27.0", "1.31.1")  # Triton 26.05 and 26.06, 26.07, the newest
NEWEST = VERSIONS[-1]
CAPABILITIES = (80, 86, 89, 90)
FORMS = [
    (precision.name, form)
    for precision in PRECISIONS.values()
    for form in precision.forms
    if form.device == "cuda"
]


@pytest.fixture(scope="module", params=VERSIONS)
def runtime(request: pytest.FixtureRequest) -> Path:
    folder = RUNTIMES / request.param
    if not folder.is_dir():
        pytest.skip(f"onnxruntime-gpu {request.param} is not in {folder}: make cuda-dry-run")
    if not shutil.which("gcc") or not shutil.which("readelf"):
        pytest.skip("the stand-ins are compiled, and gcc or readelf (binutils) is missing")
    return folder


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Checkpoints of two and three layers; kernels are chosen by head size, 64 as in GPT-2."""
    folders = [tmp_path_factory.mktemp(f"layers{n}") for n in (2, 3)]
    return [
        random_checkpoint(folder, n_layer=n, n_head=2, n_embd=128)
        for n, folder in zip((2, 3), folders, strict=True)
    ]


def save(checkpoint: Path, precision: str, form: Form, path: Path) -> Path:
    ir.save(PRECISIONS[precision].build(load(str(checkpoint)), form), path)
    return path


@pytest.mark.parametrize(("precision", "form"), FORMS, ids=lambda x: getattr(x, "name", x))
def test_every_batch_goes_through_the_fused_kernel_within_the_budget(
    runtime: Path, checkpoints: list[Path], precision: str, form: Form, tmp_path: Path
) -> None:
    graphs = [
        save(checkpoint, precision, form, tmp_path / f"{n}.onnx")
        for n, checkpoint in enumerate(checkpoints)
    ]
    sessions = dry_run(
        runtime, graphs, grid(), tmp_path, capabilities=CAPABILITIES, options=cuda_options()
    )
    shallow, deep = sessions[: len(CAPABILITIES)], sessions[len(CAPABILITIES) :]
    for one, other in zip(shallow, deep, strict=True):
        assert one.capability == other.capability
        assert violations(one, other, 1) == []
        assert set(one.runs) == set(grid())
        # the whole front is on the CPU: CUDA has no integer operator but the plan's own gathers
        assert not {"Unique", "CumSum", "NonZero", "Pad", "Equal"} & set(
            one.nodes["CUDAExecutionProvider"]
        )


def test_the_dry_run_sees_what_was_wrong(
    runtime: Path, checkpoints: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without alignment, the fused kernel refuses 88 queries over 221 keys, and that is seen."""
    monkeypatch.setattr(attention, "UNIT", 1)
    padded = PRECISIONS["fp16"].form("cuda", "padded")
    graph = save(checkpoints[0], "fp16", padded, tmp_path / "unaligned.onnx")
    batches = {name: ids for name, ids in grid().items() if name.endswith(" keys")}
    (session,) = dry_run(runtime, [graph], batches, tmp_path, options=cuda_options())
    assert "fmha" in session.runs["best of 8, 221 keys"].error
    assert not session.runs["best of 8, 224 keys"].error


def test_loops_and_integer_products_are_not_for_a_gpu(
    runtime: Path, checkpoints: list[Path], tmp_path: Path
) -> None:
    graphs = [
        save(checkpoints[0], name, PRECISIONS[name].form("cpu"), tmp_path / f"{name}.onnx")
        for name in ("fp32", "int8")
    ]
    ids = np.arange(80, dtype=np.int32).reshape(4, 20)
    looped, int8 = dry_run(runtime, graphs, {"one": ids}, tmp_path, options=cuda_options())
    assert looped.runs["one"].to_host > 4
    assert int8.nodes["CPUExecutionProvider"]["MatMulIntegerToFloat"] > 0


COMPARE = """
import sys
from pathlib import Path
from reward_export.parity import CUDA, open_session
session = open_session(Path(sys.argv[1]), (CUDA, "CPUExecutionProvider"))
print(session.get_provider_options()[CUDA])
"""


def test_the_exporter_compares_with_the_options_that_are_served(
    runtime: Path, checkpoints: list[Path], tmp_path: Path
) -> None:
    """With the stand-ins; without them the provider does not start, and the exporter says so."""
    libraries = tmp_path / "stand-ins"
    stand_ins.build(runtime, libraries)
    graph = save(checkpoints[0], "fp32", PRECISIONS["fp32"].form("cuda"), tmp_path / "fp32.onnx")
    environment = {**os.environ, "PYTHONPATH": str(runtime), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", COMPARE, str(graph)]
    if runtime.name != NEWEST:  # the newest asks for more of cuDNN before it starts
        with_them = {**environment, "LD_LIBRARY_PATH": str(libraries)}
        done = subprocess.run(command, env=with_them, capture_output=True, text=True, check=True)
        options = ast.literal_eval(done.stdout.splitlines()[-1])
        served = cuda_options()
        assert {key: options[key] for key in CUDA_OPTIONS} == CUDA_OPTIONS
        assert {key: served[key] for key in CUDA_OPTIONS} == CUDA_OPTIONS
    alone = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "has CUDAExecutionProvider and could not start it" in alone.stderr
