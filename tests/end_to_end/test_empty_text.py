"""The one text whose reward a mask would change: docs/contract.md says which reward is served."""

from importlib import resources
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, GPT2Tokenizer

from reward_client import RewardClient
from reward_serve.server import TritonServer

DATA = Path(str(resources.files("reward_text"))) / "data"
TEXTS = ["", "Hi", "How was your day?\nGreat, and yours?"]


def rewards(folder: Path, attention: str, length: int, *, all_ones: bool) -> np.ndarray:
    """Rewards from the model card's snippet, with the tokenizer's mask or a mask of ones."""
    tokenizer = GPT2Tokenizer(vocab=str(DATA / "encoder.json"), merges=str(DATA / "vocab.bpe"))
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    encoded = tokenizer(TEXTS, padding="max_length", max_length=length, return_tensors="pt")
    if all_ones:
        encoded["attention_mask"] = torch.ones_like(encoded["attention_mask"])
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, attn_implementation=attention, dtype=torch.float32
    )
    with torch.no_grad():
        return np.array(model.eval()(**encoded).logits[:, 0])


def test_the_empty_text_is_the_pad_token_that_sees_itself(
    server: TritonServer, checkpoint_folder: Path
) -> None:
    with RewardClient(server.grpc_url) as client:
        served = client.score(TEXTS).rewards
    np.testing.assert_allclose(
        served, rewards(checkpoint_folder, "sdpa", 256, all_ones=True), rtol=0, atol=1e-5
    )
    cards = [
        rewards(checkpoint_folder, attention, length, all_ones=False)
        for attention, length in [("sdpa", 256), ("eager", 256), ("eager", 64)]
    ]
    for found in cards:
        np.testing.assert_allclose(found[1:], served[1:], rtol=0, atol=1e-5)
    empty = [found[0] for found in cards]
    assert len({f"{reward:.4f}" for reward in empty}) > 1, "a row without keys has no single answer"
    assert all(abs(reward - served[0]) > 1e-4 or np.isnan(reward) for reward in empty)
