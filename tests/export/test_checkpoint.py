"""Checkpoints that are refused before anything is written, and why."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, GPT2Config, GPT2LMHeadModel

from reward_contract import INPUT_IDS
from reward_export.batches import groups_of_candidates
from reward_export.checkpoint import load, revision_of
from reward_export.errors import CheckpointError
from reward_export.export import GRAPH_NAME, MANIFEST_NAME, ExportOptions, export
from reward_export.parity import open_session
from reward_export.random_checkpoint import random_checkpoint
from reward_train.metrics import sigmoid

TINY = {"n_layer": 1, "n_head": 1, "n_embd": 8}


def edit(folder: Path, **fields: object) -> None:
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | fields))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return random_checkpoint(tmp_path / "tiny", **TINY)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pad_token_id": None}, 'add "pad_token_id": 50256 to its config.json'),
        ({"pad_token_id": 0}, "has pad_token_id 0; the contract with the clients says 50256"),
        ({"vocab_size": 50258}, "has vocab_size 50258"),
        ({"n_positions": 128}, "has 128 positions; clients send up to 256"),
        ({"activation_function": "relu"}, "activation_function is 'relu'"),
        ({"id2label": {str(i): str(i) for i in range(6)}}, "has 6 outputs; a reward is one logit"),
        (
            {
                "id2label": {"0": "a", "1": "b"},
                "problem_type": "multi_label_classification",
            },
            "two labels that do not exclude each other",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    tiny: Path, fields: dict[str, object], message: str
) -> None:
    edit(tiny, **fields)
    with pytest.raises(CheckpointError, match=message):
        load(str(tiny))


def test_two_outputs_become_the_difference_whose_sigmoid_is_their_softmax(tmp_path: Path) -> None:
    folder = random_checkpoint(tmp_path / "two", **TINY, num_labels=2)
    checkpoint = load(str(folder))
    ids = next(groups_of_candidates())
    with torch.inference_mode():
        tokens = torch.from_numpy(ids.astype(np.int64))
        both = checkpoint.model(tokens, attention_mask=torch.ones_like(tokens)).logits
    rewards = checkpoint.rewards(ids)
    np.testing.assert_allclose(sigmoid(rewards[:, 0]), both.softmax(1)[:, 1].numpy(), atol=1e-6)

    published = export(ExportOptions(str(folder), tmp_path / "repository"), print)
    session = open_session(published.path / GRAPH_NAME)
    (found,) = session.run(None, {INPUT_IDS.name: ids})
    np.testing.assert_allclose(found, rewards, rtol=0, atol=1e-5)
    assert json.loads((published.path / MANIFEST_NAME).read_text())["head"] == (
        "logit 1 minus logit 0"
    )


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="is a bert model; only GPT-2 classifiers"):
        load(str(tmp_path))


def test_a_language_model_without_a_trained_head_is_refused(tmp_path: Path) -> None:
    GPT2LMHeadModel(GPT2Config(**TINY)).save_pretrained(tmp_path)
    edit(tmp_path, pad_token_id=50256, id2label={"0": "LABEL_0"})
    with pytest.raises(CheckpointError, match=r"lacks 1 trained weights, score\.weight"):
        load(str(tmp_path))


def test_weights_that_would_be_left_out_are_refused(tiny: Path, tmp_path: Path) -> None:
    weights = dict(load(str(tiny)).model.state_dict())
    (tmp_path / "config.json").write_text((tiny / "config.json").read_text())
    torch.save(weights | {"score.bias": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"does not have, score\.bias among them"):
        load(str(tmp_path))


def test_buffers_of_older_transformers_are_no_weights(tiny: Path, tmp_path: Path) -> None:
    weights = dict(load(str(tiny)).model.state_dict())
    (tmp_path / "config.json").write_text((tiny / "config.json").read_text())
    old = {"transformer.h.0.attn.bias": torch.ones(1, 1, 8, 8, dtype=torch.uint8)}
    old["transformer.h.0.attn.masked_bias"] = torch.tensor(-1e4)
    torch.save(weights | old, tmp_path / "pytorch_model.bin")
    assert load(str(tmp_path)).architecture == load(str(tiny)).architecture


def test_a_damaged_weight_file_is_refused(tiny: Path) -> None:
    weights = tiny / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot load the weights"):
        load(str(tiny))


@pytest.mark.parametrize("source", ["./nowhere", "/nowhere", "a/b/c"])
def test_a_folder_that_is_not_there(source: str) -> None:
    with pytest.raises(CheckpointError, match="there is no folder"):
        load(source)


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        load(str(tmp_path))


def test_a_hub_id_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="could be fetched from the hub"):
        load("nobody-xyz/no-such-model")


def test_bin_and_safetensors_give_the_same_checkpoint(tiny: Path, tmp_path: Path) -> None:
    first = load(str(tiny))
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "config.json").write_text((tiny / "config.json").read_text())
    torch.save(first.model.state_dict(), folder / "pytorch_model.bin")
    second = load(str(folder))
    ids = np.arange(12, dtype=np.int32).reshape(2, 6)
    np.testing.assert_array_equal(first.rewards(ids), second.rewards(ids))
    assert second.revision.startswith("sha256:")


def test_half_precision_weights_are_computed_in_float32(tiny: Path, tmp_path: Path) -> None:
    load(str(tiny)).model.half().save_pretrained(tmp_path / "half")
    half = load(str(tmp_path / "half"))
    assert {array.dtype for array in half.weights().values()} == {np.dtype(np.float32)}


def test_the_revision_tells_weights_apart(tmp_path: Path) -> None:
    folders = [random_checkpoint(tmp_path / str(s), seed=s, **TINY) for s in (0, 1)]
    again = random_checkpoint(tmp_path / "again", seed=0, **TINY)
    assert revision_of(folders[0]) == revision_of(again) != revision_of(folders[1])
    config = folders[0] / "config.json"
    config.write_text(config.read_text().replace("gelu_new", "gelu"))
    assert revision_of(folders[0]) != revision_of(again), "other rewards from the same weights"
