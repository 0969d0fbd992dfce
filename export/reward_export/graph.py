"""The scoring graph: GPT-2 with a one-output head that computes only tokens that differ.

Each step is a function; shapes are at line ends, in one alphabet:

    B rows   U distinct rows   S positions as sent   N positions up to the longest row
    V vocabulary   T packed tokens (those that differ)   H hidden   h heads   D hidden per head
    A stretches of queries   I, O input and output channels of a linear layer

1. `tree.admit`        lengths of the rows; rows that cannot be scored are set aside
2. `tree.prefix_tree`  the distinct rows, in order, and which tokens the row before does not have
3. `tree.pack`         those tokens in one line: [T]
4. `attention`         a row's queries against the keys of the row, wherever they were computed
5. `Block.last`        the last block computes only what is read: one token per row
   `pool`              its logit, for each row that has it; NaN if the row was set aside

Between 3 and 5 are the transformer's blocks, on [T, H] only: no padding, no shared
prefix twice.

Why the rewards are those of the padded model: GPT-2 is causal and its positions are
absolute, so a token's hidden state depends on the tokens up to it and on nothing else.
Two rows that agree up to a position have the same state there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from reward_contract import INPUT_IDS, REWARD
from reward_export.attention import (
    Attention,
    AttentionForm,
    fresh_stretches,
    last_tokens,
    n_blocks,
)
from reward_export.fold import without_key_value_biases
from reward_export.linear import Linear
from reward_export.ops import CONTRIB_DOMAIN, FLOAT, Ops, tensor_input
from reward_export.tree import Packed, Rows, Tree, admit, pack, prefix_tree

Weights: TypeAlias = Mapping[str, NDArray[np.float32]]

THIRDS = ("query", "key", "value")  # of `attn.c_attn`'s columns


@dataclass(frozen=True, slots=True)
class Architecture:
    """Sizes and switches of a GPT-2, under the names of `transformers.GPT2Config`.

    Attributes:
        n_layer: number of blocks.
        n_head: heads of each block.
        n_embd: hidden size H.
        n_positions: positions in the table, the longest row that can be scored.
        vocab_size: V.
        layer_norm_epsilon: added to the variance.
        attention_scales: one factor per block, for the scores of queries and keys.
        gelu: `tanh` for `gelu_new`, `none` for the exact one.
    """

    n_layer: int
    n_head: int
    n_embd: int
    n_positions: int
    vocab_size: int
    layer_norm_epsilon: float
    attention_scales: tuple[float, ...]
    gelu: str = "tanh"


@dataclass(frozen=True, slots=True)
class Stream:
    """The residual stream; its newest update, with or without a bias, may not be added yet."""

    hidden: ir.Value  # [T, H]
    update: ir.Value | None = None  # [T, H]
    bias: ir.Value | None = None  # [H]


Part: TypeAlias = Callable[["Layers", ir.Value, ir.Value], Stream]
"""What a block does with the residual stream and with what attention gives, both [T, H]."""


@dataclass(frozen=True, slots=True)
class Layers:
    """The parts of GPT-2 on packed tokens, made of standard operators: the fastest on CPUs."""

    op: Ops
    architecture: Architecture
    weights: Weights
    times: Linear

    def embed(self, tokens: ir.Value, positions: ir.Value) -> Stream:
        """Token plus position embedding. [T], [T] -> [T, H]."""
        op, table = self.op, self.weights["transformer.wte.weight"]
        token = self.times.embed(op, "wte.weight", table, tokens)
        return Stream(op.Add(token, op.Gather(self.weight("wpe.weight"), positions)))

    def norm(self, stream: Stream, name: str) -> tuple[ir.Value, ir.Value]:
        """The layer norm of the stream over the hidden dimension, and the stream itself."""
        scale, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        epsilon = self.architecture.layer_norm_epsilon
        normed = self.op.LayerNormalization(stream.hidden, scale, bias, axis=-1, epsilon=epsilon)
        return normed, stream.hidden

    def in_blocks(self, part: Part, hidden: ir.Value, x: ir.Value) -> Stream:
        """`part` of the two lines [T, H], one block of tokens after the other. -> [T, H].

        What the part computes between its operators stays in a processor's caches: on all tokens
        of 32 full rows at once, it took a fifth longer.
        """
        op, width = self.op, self.architecture.n_embd
        cut = op.Concat(n_blocks(op, op.Shape(x, end=1)), op.shape(-1, width), axis=0)

        def turn(op: Ops, hidden: ir.Value, x: ir.Value) -> ir.Value:
            return part(replace(self, op=op), hidden, x).hidden

        blocks = op.scan(turn, op.Reshape(hidden, cut), op.Reshape(x, cut))  # [n, c, H]
        return Stream(op.Reshape(blocks, op.shape(-1, width)))

    def update(self, hidden: ir.Value, x: ir.Value, name: str) -> Stream:
        """The stream with a linear layer of `x` added."""
        return Stream(self.op.Add(hidden, self.linear(x, name)))

    def activated(self, x: ir.Value, name: str) -> ir.Value:
        """A linear layer and the activation function. [T, H] -> [T, 4 * H]."""
        return self.op.Gelu(self.linear(x, name), approximate=self.architecture.gelu)

    def linear(self, x: ir.Value, name: str) -> ir.Value:
        """`x` times the weight, plus bias; GPT-2 stores weights as [in, out]."""
        weight, bias = (self.weights[f"transformer.{name}.{kind}"] for kind in ("weight", "bias"))
        return self.times(self.op, x, name, weight, bias)

    def third(self, x: ir.Value, c_attn: str, part: Literal["query", "key", "value"]) -> ir.Value:
        """`x` times the columns of `c_attn` that make its queries, keys or values. -> [T, H]."""
        weight, bias = (
            np.split(self.weights[f"transformer.{c_attn}.{kind}"], 3, axis=-1)[THIRDS.index(part)]
            for kind in ("weight", "bias")
        )
        name = f"{c_attn}.{part}"
        own_bias = bias if part == "query" else None  # see `without_key_value_biases`
        return self.times(self.op, x, name, np.ascontiguousarray(weight), own_bias)

    def weight(self, name: str) -> ir.Value:
        """A weight of the checkpoint, unchanged: small ones are float32 in every precision."""
        return self.op.weight(name, self.weights[f"transformer.{name}"])


class FusedLayers(Layers):
    """The parts made of ONNX Runtime's fused operators, for GPUs: fewer launches, fewer bytes.

    The residual stream has the type that the linear layers compute in. The norm that follows a
    layer adds its output and its bias to the stream.
    """

    def embed(self, tokens: ir.Value, positions: ir.Value) -> Stream:
        """See `Layers`; the first norm adds the two."""
        op, table = self.op, self.weights["transformer.wte.weight"]
        token = self.times.embed(op, "wte.weight", table, tokens)
        return Stream(token, op.Gather(self.weight("wpe.weight"), positions))

    def norm(self, stream: Stream, name: str) -> tuple[ir.Value, ir.Value]:
        """See `Layers`."""
        normed, _, _, hidden = self.op.several(
            "SkipLayerNormalization",
            stream.hidden,
            stream.update,
            self.weight(f"{name}.weight"),
            self.weight(f"{name}.bias"),
            stream.bias,
            n_outputs=4,
            domain=CONTRIB_DOMAIN,
            epsilon=self.architecture.layer_norm_epsilon,
        )
        return normed, hidden

    def in_blocks(self, part: Part, hidden: ir.Value, x: ir.Value) -> Stream:
        """See `Layers`; on all tokens at once, since a GPU would wait between blocks."""
        return part(self, hidden, x)

    def update(self, hidden: ir.Value, x: ir.Value, name: str) -> Stream:
        """See `Layers`."""
        return Stream(hidden, self._product(x, name), self.weight(f"{name}.bias"))

    def activated(self, x: ir.Value, name: str) -> ir.Value:
        """See `Layers`."""
        operator = "FastGelu" if self.architecture.gelu == "tanh" else "BiasGelu"
        return self.op.contrib(operator, self._product(x, name), self.weight(f"{name}.bias"))

    def weight(self, name: str) -> ir.Value:
        """A weight of the checkpoint, in the type that the linear layers compute in."""
        dtype = ir.DataType(self.times.compute).numpy()
        return self.op.weight(name, self.weights[f"transformer.{name}"].astype(dtype))

    def _product(self, x: ir.Value, name: str) -> ir.Value:
        return self.times(self.op, x, name, self.weights[f"transformer.{name}.weight"], None)


@dataclass(frozen=True, slots=True)
class Block:
    """One transformer block."""

    layers: Layers
    index: int

    def __call__(self, stream: Stream, attention: Attention) -> Stream:
        """The block's output for every packed token. [T, H] -> [T, H]."""
        normed, hidden = self.layers.norm(stream, self.name("ln_1"))
        return self._finish(hidden, self._attend(attention, normed, normed))

    def last(self, stream: Stream, pooled: ir.Value, attention: Attention) -> Stream:
        """The block's output for the `pooled` tokens [U] only, over the keys of all. -> [U, H]."""
        layers, op = self.layers, self.layers.op
        normed, hidden = layers.norm(stream, self.name("ln_1"))
        attended = self._attend(attention, op.Gather(normed, pooled), normed)
        return self._finish(op.Gather(hidden, pooled), attended)

    def _attend(self, attention: Attention, asking: ir.Value, normed: ir.Value) -> ir.Value:
        """Attention of the `asking` tokens over all. [T, H] or [U, H], [T, H] -> as asking."""
        layers, architecture = self.layers, self.layers.architecture
        return attention(
            layers.third(asking, self.name("attn.c_attn"), "query"),
            layers.third(normed, self.name("attn.c_attn"), "key"),
            layers.third(normed, self.name("attn.c_attn"), "value"),
            n_head=architecture.n_head,
            scale=architecture.attention_scales[self.index],
        )

    def _finish(self, hidden: ir.Value, attended: ir.Value) -> Stream:
        """Output projection and MLP, each added to the residual stream."""
        return self.layers.in_blocks(self._rest, hidden, attended)

    def _rest(self, layers: Layers, hidden: ir.Value, attended: ir.Value) -> Stream:
        stream = layers.update(hidden, attended, self.name("attn.c_proj"))
        normed, hidden = layers.norm(stream, self.name("ln_2"))
        inner = layers.activated(normed, self.name("mlp.c_fc"))  # [T, 4 * H]
        return layers.update(hidden, inner, self.name("mlp.c_proj"))

    def name(self, part: str) -> str:
        """The part's name in the checkpoint."""
        return f"h.{self.index}.{part}"


def build(
    architecture: Architecture,
    weights: Weights,
    linear: Linear,
    attention: AttentionForm,
    parts: type[Layers] = Layers,
) -> ir.Model:
    """The whole graph: `input_ids` int32 [B, S] to `reward` float32 [B, 1].

    Args:
        architecture: sizes and switches.
        weights: float32 arrays under the names of `GPT2ForSequenceClassification`'s
            state dict.
        linear: how linear layers are computed.
        attention: how attention is computed on the results of `linear`.
        parts: which operators the blocks are made of.
    """
    op = Ops()
    weights = without_key_value_biases(weights, architecture.n_layer)
    ids = tensor_input(INPUT_IDS.name, ir.DataType.INT32, ("batch", "sequence"))
    rows = admit(op, ids, architecture.vocab_size, architecture.n_positions)
    tree = prefix_tree(op, rows)
    packed = pack(op, tree)

    layers, compute = parts(op, architecture, weights, linear), linear.compute
    *blocks, last = [Block(layers, index) for index in range(architecture.n_layer)]
    over_tree = attention(op, tree, packed, fresh_stretches(op, tree), compute)
    stream = layers.embed(*(over_tree.lengthened(x) for x in (packed.tokens, packed.positions)))
    for block in blocks:
        stream = block(stream, over_tree)  # [T, H]
    over_keys = attention(op, tree, packed, last_tokens(op, tree), compute)
    pooled = over_keys.lengthened(pooled_tokens(op, tree, packed))
    stream = last.last(stream, pooled, over_keys)  # [U, H]

    normed, _ = layers.norm(stream, "ln_f")
    reward = pool(op, normed, weights["score.weight"], rows, tree)
    reward.name = REWARD.name
    reward.type, reward.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(("batch", 1))
    return op.model([ids], [reward])


def pooled_tokens(op: Ops, tree: Tree, packed: Packed) -> ir.Value:
    """Index in the packed line of the last token of each distinct row. -> [U]."""
    last = op.Sub(tree.length, op.int64(1))
    node = op.GatherElements(packed.node, op.Unsqueeze(last, op.shape(1)), axis=1)  # [U, 1]
    return op.Squeeze(node, op.shape(1))


def pool(
    op: Ops, hidden: ir.Value, weight: NDArray[np.float32], rows: Rows, tree: Tree
) -> ir.Value:
    """The reward of each row, NaN if the row was set aside. [U, H] -> [B, 1]."""
    own = op.Gather(hidden, tree.which)  # [B, H]
    reward = op.Gemm(op.Cast(own, to=FLOAT), op.weight("score.weight", weight), transB=1)
    return op.Where(op.Unsqueeze(rows.admitted, op.shape(1)), reward, op.float32(float("nan")))
