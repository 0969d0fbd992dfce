"""Takes outlier channels out of activations before they are quantised to int8.

GPT-2 has channels that are tens of times larger than the others. A row that is quantised by
its largest magnitude has few steps left for the rest of it. If the activation comes from a
linear step, a factor for each channel moves from activation to weight for free:

    activation / s  times  s * weight   is   activation  times  weight

The layer norms before `attn.c_attn` and `mlp.c_fc` take 1 / s into scale and bias. The
attention before `attn.c_proj` is linear in the values, so the value part of `attn.c_attn`
takes it. Before `mlp.c_proj` is GELU, which is not linear: nothing is moved there.

The factors are those of SmoothQuant (Xiao et al., 2022, arXiv 2211.10438) with alpha 1/2:
the square root of the activation's largest magnitude over the weight's.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from reward_export.graph import Weights

Float32 = NDArray[np.float32]


def smoothed(weights: Weights, largest: Mapping[str, Float32], n_layer: int) -> Weights:
    """The same model with its outlier channels moved from activations to weights.

    Args:
        weights: a state dict of `GPT2ForSequenceClassification`.
        largest: for each linear module's name, such as `transformer.h.0.mlp.c_fc`, the
            largest magnitude seen in each channel of its input. float32 [I].
        n_layer: number of blocks.
    """
    result = dict(weights)
    for layer in range(n_layer):
        block = f"transformer.h.{layer}"
        for norm, linear in (("ln_1", "attn.c_attn"), ("ln_2", "mlp.c_fc")):
            factor = _factor(largest[f"{block}.{linear}"], result[f"{block}.{linear}.weight"])
            for kind in ("weight", "bias"):
                result[f"{block}.{norm}.{kind}"] = result[f"{block}.{norm}.{kind}"] / factor
            result[f"{block}.{linear}.weight"] = (
                result[f"{block}.{linear}.weight"] * factor[:, None]
            )
        _smooth_values(result, largest[f"{block}.attn.c_proj"], f"{block}.attn")
    return result


def _smooth_values(weights: dict[str, Float32], largest: Float32, attention: str) -> None:
    projection = weights[f"{attention}.c_proj.weight"]  # [H, H]
    factor = _factor(largest, projection)
    weights[f"{attention}.c_proj.weight"] = projection * factor[:, None]
    width = len(factor)
    for kind in ("weight", "bias"):
        joint = weights[f"{attention}.c_attn.{kind}"].copy()  # [..., 3 * H]: query, key, value
        joint[..., 2 * width :] /= factor
        weights[f"{attention}.c_attn.{kind}"] = joint


def _factor(largest: Float32, weight: Float32) -> Float32:
    """The divisor of each input channel's activation. [I]; powers of two, so it is exact."""
    ratio = np.maximum(largest, 1e-5) / np.maximum(np.abs(weight).max(axis=1), 1e-5)
    factor: Float32 = np.exp2(np.round(np.log2(np.sqrt(ratio)))).astype(np.float32)
    return factor
