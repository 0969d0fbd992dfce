"""A small GPT-2 to start from without a checkpoint, with the parts of a comparison built in.

Random weights learn to compare a reply with its context only after very many tokens. Here
the parts of a comparison are there from the start, and training only has to tune them:

    token embedding       [ what the token is like  | free                         ]
    attention, a mean     [        "                | mean of the tokens before     ]
    MLP, a dot product    adds the product of the two halves along one direction
    last attention        adds the mean of that over the tokens before

The dot product is a sum of squares, (a + b)^2 - (a - b)^2 = 4ab, and gelu(z) + gelu(-z) is
0.8 z^2 near 0.
"""

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from transformers import GPT2Config
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP, GPT2Attention, GPT2Block

from reward_contract import CONTRACT
from reward_train.errors import StartError
from reward_train.model import PackedClassifier

EMBEDDING_STD = 0.14  # of the token embeddings; what retrieval training ends with
POSITION_SCALE = 0.3  # positions must not drown tokens
MEAN_SCALE = 3.0  # a mean of many tokens is shorter than a token
SQUARE_SCALE = 0.5  # keeps most of gelu's arguments where it is nearly quadratic
PRODUCT_SCALE = 0.1  # of the product in the residual stream


class Shape(NamedTuple):
    """Sizes of a model from scratch.

    Attributes:
        n_layer: blocks, at least 2.
        n_head: heads per block, an even number.
        n_embd: hidden size, a multiple of `n_head`.
    """

    n_layer: int
    n_head: int
    n_embd: int

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """Read a text such as `4,4,128` as layers, heads and hidden size.

        Raises:
            StartError: the text is something else.
        """
        try:
            return cls(*map(int, text.split(",")))
        except (TypeError, ValueError) as error:
            raise StartError(
                f"expected LAYERS,HEADS,HIDDEN, such as 4,4,128, not {text!r}"
            ) from error


@dataclass(frozen=True, slots=True)
class Scratch:
    """How a model from scratch begins.

    Attributes:
        shape: its sizes.
        seed: of its weights.
    """

    shape: Shape
    seed: int = 0


def classifier_from_scratch(scratch: Scratch, embeddings: torch.Tensor) -> PackedClassifier:
    """A new model before its first training step.

    Args:
        scratch: sizes and seed.
        embeddings: float [vocab_size, n_embd / 2], alike for tokens that are used alike.

    Raises:
        StartError: the sizes do not fit together.
    """
    n_layer, n_head, n_embd = scratch.shape
    if n_layer < 2 or n_embd % n_head or n_head % 2:  # noqa: PLR2004  # two kinds of layers
        raise StartError(
            "a model from scratch needs at least 2 layers, an even number of heads, and a hidden "
            f"size that is a multiple of it, not {n_layer} layers, {n_head} heads and {n_embd}"
        )
    config = GPT2Config(n_layer=n_layer, n_head=n_head, n_embd=n_embd)
    config.update({"num_labels": 1, "pad_token_id": CONTRACT.pad_token_id})
    with torch.random.fork_rng(devices=()), torch.no_grad():
        torch.manual_seed(scratch.seed)
        model = PackedClassifier(config)
        transformer = model.transformer
        half = n_embd // 2
        transformer.wte.weight[:, :half] = embeddings * (EMBEDDING_STD / embeddings.std())
        transformer.wpe.weight.mul_(POSITION_SCALE)
        direction = torch.nn.functional.normalize(torch.randn(n_embd), dim=0)
        blocks = cast("list[GPT2Block]", list(transformer.h))
        _mean_into_second_half(blocks[0].attn, half)
        _product_of_halves(blocks[0].mlp, half, direction)
        _mean_of(blocks[-1].attn, direction)
        model.score.weight.add_(direction)
    return model


def _mean_into_second_half(attention: GPT2Attention, half: int) -> None:
    """Queries and keys stay near 0, which weighs all tokens alike."""
    identity = torch.eye(half)
    attention.c_attn.weight[:half, 4 * half : 5 * half] += identity  # values of the first heads
    attention.c_proj.weight[:half, half:] += MEAN_SCALE * identity


def _product_of_halves(mlp: GPT2MLP, half: int, direction: torch.Tensor) -> None:
    identity = SQUARE_SCALE * torch.eye(half)
    for number, (a, b) in enumerate([(1, 1), (-1, -1), (1, -1), (-1, 1)]):
        units = slice(number * half, (number + 1) * half)
        mlp.c_fc.weight[:, units] += torch.cat([a * identity, b * identity])
        mlp.c_proj.weight[units] += a * b * PRODUCT_SCALE * direction


def _mean_of(attention: GPT2Attention, direction: torch.Tensor) -> None:
    n_embd = len(direction)
    attention.c_attn.weight[:, 2 * n_embd] += direction
    attention.c_proj.weight[0] += direction
