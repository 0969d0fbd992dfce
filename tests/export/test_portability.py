"""The same file on the ONNX Runtimes of Triton's images, each installed by the Makefile."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from reward_export.batches import groups_of_candidates
from reward_export.checkpoint import load
from reward_export.precision import PRECISIONS

RUNTIMES = Path(sys.prefix) / "onnxruntimes"
VERSIONS = ("1.24.4", "1.27.0")  # Triton 26.05 and 26.06, 26.07; the newest is installed anyway
SCRIPT = """
import sys
import numpy as np, onnxruntime
from reward_contract.cpu import session_entries
graph, batches, rewards = sys.argv[1:]
options = onnxruntime.SessionOptions()
for entry in session_entries().items():  # as what serves does
    options.add_session_config_entry(*entry)
session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
found = {k: session.run(None, {"input_ids": ids})[0] for k, ids in np.load(batches).items()}
np.savez(rewards, **found)
print(onnxruntime.__version__)
"""


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_file_keeps_its_precisions_promise_on_each_runtime(
    outlier_folder: Path, tmp_path: Path, version: str, precision: str
) -> None:
    """Not equal to the last bit: a runtime's rounding can move an activation by a step of int8."""
    runtime = RUNTIMES / version
    if not runtime.is_dir():
        pytest.skip(f"ONNX Runtime {version} is not in {runtime}; make test puts it there")
    checkpoint = load(str(outlier_folder))
    batches = list(groups_of_candidates())
    graph = tmp_path / "model.onnx"
    ir.save(PRECISIONS[precision].build(checkpoint), graph)
    np.savez(tmp_path / "batches.npz", **{str(i): ids for i, ids in enumerate(batches)})
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(graph), "batches.npz", "rewards.npz"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(runtime)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == version
    rewards = np.load(tmp_path / "rewards.npz")
    found = np.concatenate([rewards[str(i)] for i in range(len(batches))])
    wanted = np.concatenate([checkpoint.rewards(ids) for ids in batches])
    tolerance = PRECISIONS[precision].tolerance
    scale = float(wanted.std()) if tolerance.in_reward_stds else 1.0
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance.max_difference * scale)
    ranks = [np.argsort(np.argsort(rewards)) for rewards in (wanted[:, 0], found[:, 0])]
    assert np.corrcoef(*ranks)[0, 1] >= tolerance.spearman
