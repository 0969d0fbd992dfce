"""Golden rows, the configuration that shows them, and weights that are not numbers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from reward_contract import CONTRACT, MODEL_NAME
from reward_contract.facts import MANIFEST_NAME, Facts, Golden, parameter_of
from reward_export.checkpoint import load
from reward_export.configuration import show
from reward_export.errors import CheckpointError
from reward_export.golden import SHORT


def parameters(config: Path) -> dict[str, str]:
    parsed = text_format.Parse(config.read_text(), model_config_pb2.ModelConfig())
    return {key: value.string_value for key, value in parsed.parameters.items()}


def test_an_export_shows_the_checkpoints_rewards_in_manifest_and_configuration(
    repository: Path, checkpoint_folder: Path
) -> None:
    folder = repository / MODEL_NAME
    facts = Facts.from_json((folder / "1" / MANIFEST_NAME).read_text())
    golden = facts.golden
    assert [len(row) for row in golden.rows] == [0, *SHORT, CONTRACT.max_tokens]
    wanted = load(str(checkpoint_folder)).rewards(np.array(golden.padded(), np.int32))[:, 0]
    np.testing.assert_array_equal(np.array(golden.rewards, np.float32), wanted)
    assert len({*golden.rewards}) == len(golden.rows)
    shown = Facts.from_json(parameters(folder / "config.pbtxt")[parameter_of(1)])
    assert shown.as_json() == facts.as_json()
    assert {*facts.sha256} == {"model.onnx", "model.onnx.data"}


def test_the_configuration_keeps_all_but_the_versions_that_are_gone(
    repository: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.pbtxt"
    shutil.copy(repository / MODEL_NAME / "config.pbtxt", config)
    before = config.read_text()
    facts = Facts(golden=None, sha256={"it's a \\ file": "00"})
    for version, kept in ((2, [1]), (3, [1, 2]), (3, [1, 2, 3]), (4, [3])):
        show(config, version, facts, kept=kept, scratch=tmp_path)
    found = parameters(config)
    assert {key for key in found if key.startswith("version.")} == {"version.3", "version.4"}
    assert json.loads(found["version.4"])["sha256"] == facts.sha256
    own = [line for line in before.splitlines() if "version.1" not in line]
    assert config.read_text().splitlines()[: len(own)] == own


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"golden": {"rows": [[1]], "rewards": [], "tolerance": 1}}',
        '{"golden": {"rows": [1], "rewards": [1], "tolerance": 1}}',
        '{"golden": {"rows": [[1]], "rewards": [1]}}',
        "{",
    ],
)
def test_facts_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"facts|golden|Expecting"):
        Facts.from_json(text)


def test_a_golden_row_is_close_within_its_tolerance_and_never_nan() -> None:
    golden = Golden(((1, 2),), (0.5,), 0.1)
    assert golden.is_close(0, 0.59)
    assert not golden.is_close(0, 0.61)
    assert not golden.is_close(0, float("nan"))
    assert golden.padded()[0][:3] == [1, 2, CONTRACT.pad_token_id]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_no_compared_text_reads_has_to_be_finite_too(
    checkpoint_folder: Path, tmp_path: Path, value: float
) -> None:
    model = load(str(checkpoint_folder)).model
    with torch.no_grad():
        model.transformer.wte.weight[43_000, 3] = value
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"1 of 3216448 values in transformer.wte.weight"):
        load(str(tmp_path))
