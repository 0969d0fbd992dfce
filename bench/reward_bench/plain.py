"""The usual export: the padded model, traced by torch.onnx.export."""

from pathlib import Path

import torch
from transformers import GPT2ForSequenceClassification


class _Padded(torch.nn.Module):
    def __init__(self, model: GPT2ForSequenceClassification) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=input_ids.long(), use_cache=False).logits
        return logits


def export(model: GPT2ForSequenceClassification, path: Path) -> None:
    """Write the padded graph: int32 [batch, sequence] to float32 [batch, 1]."""
    axes = {"input_ids": {0: "batch", 1: "sequence"}}
    torch.onnx.export(
        _Padded(model).eval(),
        (torch.zeros((2, 7), dtype=torch.int32),),
        path,
        dynamo=True,
        dynamic_shapes=axes,
        input_names=["input_ids"],
        output_names=["reward"],
        opset_version=20,
        verbose=False,
    )
