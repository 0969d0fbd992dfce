"""Takes key and value biases out of the graph, which saves two passes over all tokens per block.

A query's scores all contain the same product of query and key bias, and softmax ignores what
all scores have in common: the key bias has no effect. The weights of a softmax add up to one,
so the value bias passes through attention unchanged: times `attn.c_proj`'s weight, it is part
of that layer's bias.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


def without_key_value_biases(weights: Mapping[str, Float32], n_layer: int) -> dict[str, Float32]:
    """Weights of the same model, with zeros as the key and value parts of `attn.c_attn.bias`.

    Args:
        weights: a state dict of `GPT2ForSequenceClassification`.
        n_layer: number of blocks.
    """
    result = dict(weights)
    for layer in range(n_layer):
        attention = f"transformer.h.{layer}.attn"
        query, key, value = np.split(result[f"{attention}.c_attn.bias"], 3)
        through = value.astype(np.float64) @ result[f"{attention}.c_proj.weight"]
        bias = (result[f"{attention}.c_proj.bias"] + through).astype(np.float32)
        result[f"{attention}.c_proj.bias"] = bias
        result[f"{attention}.c_attn.bias"] = np.concatenate([query, 0 * key, 0 * value])
    return result
