"""The same file on the ONNX Runtimes of Triton's images, each installed by the Makefile."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from reward_export.checkpoint import load
from reward_export.graph import build
from reward_export.parity import groups_of_candidates

RUNTIMES = Path(sys.prefix) / "onnxruntimes"
VERSIONS = ("1.24.4", "1.27.0")  # Triton 26.05 and 26.06, 26.07; the newest is installed anyway
SCRIPT = """
import sys
import numpy as np, onnxruntime
graph, batches, rewards = sys.argv[1:]
session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
found = {k: session.run(None, {"input_ids": ids})[0] for k, ids in np.load(batches).items()}
np.savez(rewards, **found)
print(onnxruntime.__version__)
"""


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("precision", "atol"), [("fp32", 1e-5), ("fp16", 1e-2), ("int8", 1e-3)])
def test_the_same_file_gives_the_same_rewards(
    outlier_folder: Path, tmp_path: Path, version: str, precision: str, atol: float
) -> None:
    runtime = RUNTIMES / version
    if not runtime.is_dir():
        pytest.skip(f"ONNX Runtime {version} is not in {runtime}; make test puts it there")
    checkpoint = load(str(outlier_folder))
    graph = tmp_path / "model.onnx"
    ir.save(build(checkpoint.architecture, checkpoint.weights(), precision), graph)
    batches = {str(i): ids for i, ids in enumerate(list(groups_of_candidates())[:6])}
    np.savez(tmp_path / "batches.npz", **batches)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(graph), "batches.npz", "rewards.npz"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(runtime)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == version
    newest = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    for name, rewards in np.load(tmp_path / "rewards.npz").items():
        wanted = newest.run(None, {"input_ids": batches[name]})[0]
        np.testing.assert_allclose(rewards, wanted, rtol=0, atol=atol)
