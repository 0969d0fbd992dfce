"""How a checkpoint has to be asked: what the exporter reads, and what it writes."""

import json
import shutil
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from reward_client.cli import main
from reward_client.wire import model_info
from reward_contract import MODEL_NAME
from reward_contract.facts import MANIFEST_NAME, Facts
from reward_export.checkpoint import Checkpoint, load
from reward_export.errors import CheckpointError
from reward_export.random_checkpoint import random_checkpoint
from reward_export.usage import usage_of
from reward_text import FORMATS, Calibration, Usage
from reward_text.usage import USAGE_NAME

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return random_checkpoint(tmp_path / "tiny", n_layer=1, n_head=1, n_embd=8)


@pytest.fixture
def checkpoint(folder: Path) -> Checkpoint:
    return load(str(folder))


def test_nothing_is_known_of_a_checkpoint_that_does_not_say(checkpoint: Checkpoint) -> None:
    assert usage_of(checkpoint) == Usage(None, 256, Calibration())


def test_the_file_beside_a_checkpoint_counts_and_options_count_more(
    checkpoint: Checkpoint, folder: Path
) -> None:
    said = Usage(FORMATS["pygmalion"], 512, Calibration(0.5, 1.0))
    said.write(folder)
    assert usage_of(checkpoint) == said
    told = usage_of(checkpoint, chat_format="lines", max_tokens=300)
    assert told == Usage(FORMATS["lines"], 300, said.calibration)


@pytest.mark.parametrize("name", ["ChaiML/gpt2_medium_retry", "chaiml/other"])
def test_chais_checkpoints_read_chais_format(folder: Path, name: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"_name_or_path": name}))
    checkpoint = load(str(folder))
    assert usage_of(checkpoint) == Usage(FORMATS["chai"])
    Usage(FORMATS["lines"]).write(folder)
    assert usage_of(checkpoint) == Usage(FORMATS["lines"]), "its own file takes precedence"


@pytest.mark.parametrize(
    ("path", "is_chais"),
    [("ChaiML/x", True), ("models--ChaiML--x/snapshots/0", True), ("NotChaiML/x", False)],
)
def test_chais_checkpoints_are_known_by_their_source(
    folder: Path, tmp_path: Path, path: str, is_chais: bool
) -> None:
    shutil.copytree(folder, tmp_path / path)
    found = usage_of(load(str(tmp_path / path))).chat_format
    assert found == (FORMATS["chai"] if is_chais else None)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"chat_format": "chia"}, "neither a format"),
        ({"max_tokens": 0}, "at least one token"),
        ({"max_tokens": 2000}, "has 1024 positions, and cannot read windows of 2000 tokens"),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(
    checkpoint: Checkpoint, options: dict, reason: str
) -> None:
    with pytest.raises(CheckpointError, match=reason):
        usage_of(checkpoint, **options)


def test_a_file_that_is_none_is_named(checkpoint: Checkpoint, folder: Path) -> None:
    (folder / USAGE_NAME).write_text("{")
    with pytest.raises(CheckpointError, match=USAGE_NAME):
        usage_of(checkpoint)


def test_the_shipped_checkpoint_says_that_it_reads_lines() -> None:
    found = Usage.read(ROOT / "checkpoints" / "chitchat" / USAGE_NAME)
    assert (found.chat_format, found.max_tokens) == (FORMATS["lines"], 256)
    metrics = json.loads((ROOT / "checkpoints" / "chitchat" / "metrics.json").read_text())
    assert found.calibration == Calibration(**metrics["calibration"])


def test_a_version_carries_it_in_manifest_and_configuration(folder: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    own = tmp_path / "own.json"
    own.write_text('{"name": "it\'s", "user": "\\\\ {content}\\n", "assistant": "{content}"}')
    words = [f"--repository={repository}", f"--format={own}", "--max-tokens=300"]
    assert main(["export", str(folder), *words]) == 0
    manifest = (repository / MODEL_NAME / "1" / MANIFEST_NAME).read_text()
    facts = Facts.from_json(manifest)
    assert Usage.from_json(facts.usage).chat_format.user == "\\ {content}\n"
    assert Usage.from_json(facts.usage).max_tokens == len(facts.golden.padded()[0]) == 300
    assert len(facts.golden.rows[-1]) == 300
    assert facts.source == str(folder)
    assert facts.revision.startswith("sha256:")
    config = model_config_pb2.ModelConfig()
    text_format.Parse((repository / MODEL_NAME / "config.pbtxt").read_text(), config)
    told = model_info(config, 1, "here")
    assert told.usage == Usage.from_json(facts.usage)
    assert (told.source, told.revision) == (facts.source, facts.revision)
    assert told.precision == facts.precision == "fp32"
    assert told.identity == facts.identity
