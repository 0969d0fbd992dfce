"""From a checkpoint to a version in the repository: whole, or not at all."""

import errno
import hashlib
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from reward_client.cli import main
from reward_contract import MODEL_NAME
from reward_export import export as exporting
from reward_export import graph, parity, repository
from reward_export.checkpoint import Checkpoint, load
from reward_export.errors import ExportError, ParityError, PublishError
from reward_export.export import ExportOptions, export
from reward_export.graph import Weights
from reward_export.precision import PRECISIONS, Model, check_float16_range

Ids = NDArray[np.int32]


@pytest.fixture
def empty_repository(repository: Path, tmp_path: Path) -> Path:
    """A repository with the configuration, and without a version."""
    folder = tmp_path / "repository" / MODEL_NAME
    folder.mkdir(parents=True)
    shutil.copy2(repository / MODEL_NAME / "config.pbtxt", folder)
    return tmp_path / "repository"


def contents(repository: Path) -> list[str]:
    return sorted(path.name for path in (repository / MODEL_NAME).iterdir())


def test_a_version_holds_graph_weights_and_manifest(repository: Path) -> None:
    version = repository / MODEL_NAME / "1"
    names = sorted(path.name for path in version.iterdir())
    assert names == ["manifest.json", "model.onnx", "model.onnx.data"]
    assert (version.stat().st_mode & 0o777) == 0o755


def test_the_manifest_says_where_it_came_from_and_what_was_measured(
    repository: Path, checkpoint_folder: Path
) -> None:
    version = repository / MODEL_NAME / "1"
    manifest = json.loads((version / "manifest.json").read_text())
    assert manifest["source"] == str(checkpoint_folder)
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        digest.update(name.encode() + (checkpoint_folder / name).read_bytes())
    assert manifest["revision"] == f"sha256:{digest.hexdigest()}"
    assert manifest["precision"] == "fp32"
    for name, found in manifest["sha256"].items():
        assert hashlib.sha256((version / name).read_bytes()).hexdigest() == found
    measured = manifest["parity"]
    assert 0 < measured["max_difference"] < 1e-5
    assert measured["max_batch_effect"] <= 1e-5
    assert measured["reward_std"] > 0.1
    assert measured["longest_row"] == 1024
    assert measured["spearman"] > 0.9999
    assert measured["best_agreement"] == 1.0
    assert manifest["versions"]["onnxruntime"] == onnxruntime.__version__


def test_the_graphs_axes_are_dynamic(repository: Path) -> None:
    session = parity.open_session(repository / MODEL_NAME / "1" / "model.onnx")
    (ids,), (reward,) = session.get_inputs(), session.get_outputs()
    assert ids.shape == ["batch", "sequence"]
    assert reward.shape == ["batch", 1]


def test_the_command_takes_the_next_free_number(
    empty_repository: Path, checkpoint_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty_repository / MODEL_NAME / "7").mkdir()
    arguments = ["export", str(checkpoint_folder), f"--repository={empty_repository}"]
    assert main(arguments) == 0
    streams = capsys.readouterr()
    assert streams.out == f"{empty_repository / MODEL_NAME / '8'}\n"
    assert "differ from PyTorch's by at most" in streams.err
    assert contents(empty_repository) == ["7", "8", "config.pbtxt"]


def test_a_graph_that_differs_from_pytorch_is_not_published(
    empty_repository: Path, checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(model: Model) -> Weights:
        key = "transformer.h.1.mlp.c_fc.bias"
        weights = model.weights()
        return {**weights, key: weights[key] + np.float32(0.01)}

    monkeypatch.setitem(PRECISIONS, "fp32", replace(PRECISIONS["fp32"], prepare=wrong))
    with pytest.raises(
        ParityError, match=r"largest difference is .* and has to be at most 0\.0001"
    ) as caught:
        export(ExportOptions(str(checkpoint_folder), empty_repository), print)
    assert caught.value.difference > caught.value.tolerance
    assert f"{caught.value.difference:.3g}" in str(caught.value)
    assert contents(empty_repository) == ["config.pbtxt"]


def test_a_graph_that_scores_bad_ids_is_not_published(
    empty_repository: Path, checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        graph,
        "pool",
        lambda op, hidden, weight, _rows, tree: op.Gemm(
            op.Gather(hidden, tree.which), op.weight("score.weight", weight), transB=1
        ),
    )
    with pytest.raises(ExportError, match="instead of NaN"):
        export(ExportOptions(str(checkpoint_folder), empty_repository), print)
    assert contents(empty_repository) == ["config.pbtxt"]


def test_a_disk_that_is_too_small_is_noticed_beforehand(
    empty_repository: Path, checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(empty_repository)._replace(free=1_000_000)
    monkeypatch.setattr(repository.shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(PublishError, match=r"has 1 MB free; the version needs \d+ MB"):
        export(ExportOptions(str(checkpoint_folder), empty_repository), print)
    assert contents(empty_repository) == ["config.pbtxt"]


def test_a_disk_that_runs_full_leaves_nothing(
    empty_repository: Path, checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(_model: object, path: Path, **_options: object) -> None:
        path.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(exporting.ir, "save", save)
    with pytest.raises(PublishError, match="No space left on device"):
        export(ExportOptions(str(checkpoint_folder), empty_repository), print)
    assert contents(empty_repository) == ["config.pbtxt"]


def test_an_interrupted_export_leaves_nothing(
    empty_repository: Path, checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(parity, "check", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export(ExportOptions(str(checkpoint_folder), empty_repository), print)
    assert contents(empty_repository) == ["config.pbtxt"]


def test_activations_beyond_float16_are_refused() -> None:
    check_float16_range(1000.0)
    for largest in (40_000.0, float("inf"), float("nan")):
        with pytest.raises(ParityError, match="try --precision fp32"):
            check_float16_range(largest)


@pytest.mark.parametrize(
    ("precision", "bytes_per_weight"), [("fp16", 2.0), ("int8", 1.0)], ids=["fp16", "int8"]
)
def test_smaller_precisions_are_published_with_their_fidelity(
    empty_repository: Path,
    outlier_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    bytes_per_weight: float,
) -> None:
    rewards, asked = Checkpoint.rewards, Counter[bytes]()

    def counted(checkpoint: Checkpoint, ids: Ids) -> NDArray[np.float32]:
        asked[ids.tobytes()] += 1
        return rewards(checkpoint, ids)

    monkeypatch.setattr(Checkpoint, "rewards", counted)
    published = export(
        ExportOptions(str(outlier_folder), empty_repository, precision=precision), print
    )
    manifest = json.loads((published.path / "manifest.json").read_text())
    assert manifest["precision"] == precision
    emulated = "float16 emulated on the CPU"
    assert manifest["provider"] == {"fp16": emulated, "int8": "CPUExecutionProvider"}[precision]
    assert (manifest["device"], manifest["attention"]) == {
        "fp16": ("cuda", "padded"),
        "int8": ("cpu", "looped"),
    }[precision]
    assert manifest["parity"]["spearman"] >= PRECISIONS[precision].tolerance.spearman
    assert manifest["parity"]["best_agreement"] >= PRECISIONS[precision].tolerance.best_agreement
    effect = {"fp16": 0.02 * manifest["parity"]["reward_std"], "int8": 1e-5}[precision]
    assert manifest["parity"]["max_batch_effect"] <= effect
    n_weights = (outlier_folder / "model.safetensors").stat().st_size / 4
    size = (published.path / "model.onnx.data").stat().st_size
    # scales, biases and layer norms stay float32: a few per cent at this width
    assert size < 1.1 * bytes_per_weight * n_weights
    assert max(asked.values()) <= 2, "once to see activations, once to compare all graphs with"


def test_a_precision_that_ranks_otherwise_is_not_published(
    empty_repository: Path, outlier_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = replace(PRECISIONS["int8"].tolerance, max_difference=9.0, spearman=1.1)
    monkeypatch.setitem(PRECISIONS, "int8", replace(PRECISIONS["int8"], tolerance=strict))
    with pytest.raises(ParityError, match=r"rank correlation is .* at least 1\.1"):
        export(ExportOptions(str(outlier_folder), empty_repository, precision="int8"), print)
    assert contents(empty_repository) == ["config.pbtxt"]


class MovedByMates:
    """A session whose rewards change a little when rows are batched, as float16's do."""

    def __init__(self, session: onnxruntime.InferenceSession, effect: float) -> None:
        self._session, self._effect = session, effect

    def run(self, names: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        (rewards,) = self._session.run(names, feed)
        together = len(feed["input_ids"]) > 1
        return [rewards + np.float32(self._effect * together)]


@pytest.mark.parametrize(("precision", "accepted"), [("fp16", True), ("fp32", False)])
def test_the_effect_of_batch_mates_is_judged_in_a_precisions_own_terms(
    repository: Path, checkpoint_folder: Path, precision: str, *, accepted: bool
) -> None:
    """1.8e-5 is the effect of float16's rounding seen on a sound checkpoint, 4 layers of 1,024."""
    model = load(str(checkpoint_folder))
    session = parity.open_session(repository / MODEL_NAME / "1" / "model.onnx")
    moved, tolerance = MovedByMates(session, 1.8e-5), PRECISIONS[precision].tolerance
    assert PRECISIONS["int8"].tolerance.batch_effect == PRECISIONS["fp32"].tolerance.batch_effect
    if accepted:
        found = parity.check(moved, model, 1024, tolerance)
        assert found.max_batch_effect == pytest.approx(1.8e-5, rel=0.1)
        return
    with pytest.raises(ParityError, match=r"batch mates is 1\.[0-9]+e-05, .* at most 1e-05"):
        parity.check(moved, model, 1024, tolerance)


def test_float32_is_exported_for_gpus_in_its_padded_form(
    empty_repository: Path, checkpoint_folder: Path
) -> None:
    arguments = ["export", str(checkpoint_folder), f"--repository={empty_repository}"]
    assert main([*arguments, "--precision=fp32", "--device=cuda"]) == 0
    version = empty_repository / MODEL_NAME / "1"
    manifest = json.loads((version / "manifest.json").read_text())
    assert (manifest["device"], manifest["attention"]) == ("cuda", "padded")
    assert manifest["parity"]["max_difference"] < 1e-5
    session = parity.open_session(version / "model.onnx")
    assert session.get_modelmeta().custom_metadata_map == {"devices": "cuda cpu"}


def test_a_form_that_a_precision_does_not_have_is_refused(
    empty_repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", "unread", f"--repository={empty_repository}", "--precision=int8"]
    assert main([*arguments, "--device=cuda"]) == 1
    assert "int8 has no form for device cuda" in capsys.readouterr().err
