"""Another calibration for a published version: nothing else of the version changes."""

import json
import shutil
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from reward_client.wire import model_info
from reward_contract import MODEL_NAME
from reward_contract.facts import MANIFEST_NAME
from reward_contract.integrity import damage, read_facts
from reward_export.errors import PublishError
from reward_export.recalibrate import recalibrate
from reward_text import Calibration, Usage


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    shutil.copytree(repository, tmp_path / "repository")
    return tmp_path / "repository"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_manifest_and_configuration_have_it_and_all_else_is_as_it_was(copy: Path) -> None:
    before = contents(copy)
    version = copy / MODEL_NAME / "1"
    identity = read_facts(version).identity
    for calibration in (Calibration(0.5, -1.0), Calibration(0.25, 2.0)):
        assert recalibrate(copy, 1, calibration, identity=identity) == version
        config = model_config_pb2.ModelConfig()
        text_format.Parse((copy / MODEL_NAME / "config.pbtxt").read_text(), config)
        told = model_info(config, 1, "here")
        facts = read_facts(version)
        assert told.usage == Usage.from_json(facts.usage)
        assert told.usage.calibration == calibration
        assert told.identity == facts.identity == identity
        assert len(facts.golden.rows) == 5
    assert damage(version) is None
    after = contents(copy)
    changed = {f"{MODEL_NAME}/1/{MANIFEST_NAME}", f"{MODEL_NAME}/config.pbtxt"}
    assert {name for name in {*before, *after} if before.get(name) != after.get(name)} == changed
    recalibrate(copy, 1, Calibration())
    manifest = json.loads((version / MANIFEST_NAME).read_text())
    assert manifest == json.loads(before[f"{MODEL_NAME}/1/{MANIFEST_NAME}"])


def test_another_model_or_none_is_refused(copy: Path) -> None:
    before = contents(copy)
    with pytest.raises(PublishError, match="is not the model that was asked"):
        recalibrate(copy, 1, Calibration(2.0), identity="00")
    with pytest.raises(PublishError, match=r"cannot read .*7"):
        recalibrate(copy, 7, Calibration(2.0))
    (copy / MODEL_NAME / "2").mkdir()
    (copy / MODEL_NAME / "2" / MANIFEST_NAME).write_text("{")
    with pytest.raises(PublishError, match=f"2/{MANIFEST_NAME}: Expecting"):
        recalibrate(copy, 2, Calibration(2.0))
    shutil.rmtree(copy / MODEL_NAME / "2")
    assert contents(copy) == before
