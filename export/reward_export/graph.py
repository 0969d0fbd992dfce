"""The scoring graph: GPT-2 with a one-output head that computes only tokens that differ.

Each step is a function; shapes stand at line ends, in one alphabet:

    B rows   S positions as sent   N positions up to the longest row   V vocabulary
    T packed tokens (those that differ)   H hidden   h heads   D hidden per head (H / h)
    A stretches of queries   I, O input and output channels of a linear layer

1. `tree.admit`        lengths of the rows; rows that cannot be scored are set aside
2. `tree.prefix_tree`  for each (row, position) the first row with the same tokens up to here
3. `tree.pack`         the tokens that are nobody's copy, in one line: [T]
4. `attention`         a row's queries against the keys of the row, wherever they were computed
5. `Block.last`        the last block computes what is read: one token a row
   `pool`              its logit; NaN where the row was set aside

Between 3 and 5 stand the transformer's blocks, on [T, H] alone: no padding, no shared
prefix twice.

Why the numbers stay those of the padded model: GPT-2 is causal and its positions are
absolute, so a token's hidden state depends on the tokens up to it and on nothing else.
Two rows that agree up to a position have the same state there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from reward_contract import INPUT_IDS, REWARD
from reward_export.attention import Attention, AttentionForm, fresh_stretches, last_tokens
from reward_export.fold import without_key_value_biases
from reward_export.linear import Linear
from reward_export.ops import FLOAT, INT64, Ops, tensor_input
from reward_export.tree import Packed, Rows, admit, pack, prefix_tree

Weights: TypeAlias = Mapping[str, NDArray[np.float32]]

THIRDS = ("query", "key", "value")  # of `attn.c_attn`'s columns


@dataclass(frozen=True, slots=True)
class Architecture:
    """Sizes and switches of a GPT-2, under the names of `transformers.GPT2Config`.

    Attributes:
        n_layer: blocks.
        n_head: heads of each block.
        n_embd: hidden size H.
        n_positions: positions in the table, the longest row that can be scored.
        vocab_size: V.
        layer_norm_epsilon: added to the variance.
        attention_scales: one factor a block for the scores of queries and keys.
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
class Layers:
    """The parts of GPT-2, on packed tokens."""

    op: Ops
    architecture: Architecture
    weights: Weights
    times: Linear

    def embed(self, packed: Packed) -> ir.Value:
        """Token plus position embedding of the packed tokens. -> [T, H]."""
        op, table = self.op, self.weights["transformer.wte.weight"]
        token = self.times.embed(op, "wte.weight", table, packed.tokens)
        return op.Add(token, op.Gather(self.weight("wpe.weight"), packed.positions))

    def norm(self, x: ir.Value, name: str) -> ir.Value:
        """Layer norm over the hidden dimension."""
        scale, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        epsilon = self.architecture.layer_norm_epsilon
        return self.op.LayerNormalization(x, scale, bias, axis=-1, epsilon=epsilon)

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

    def add(self, hidden: ir.Value, update: ir.Value) -> ir.Value:
        """The residual stream, which is float32 in every precision."""
        if self.times.compute != FLOAT:
            update = self.op.Cast(update, to=FLOAT)
        return self.op.Add(hidden, update)

    def weight(self, name: str) -> ir.Value:
        """A weight of the checkpoint as it is: small ones are float32 in every precision."""
        return self.op.weight(name, self.weights[f"transformer.{name}"])


@dataclass(frozen=True, slots=True)
class Block:
    """One transformer block."""

    layers: Layers
    index: int

    def __call__(self, hidden: ir.Value, attention: Attention) -> ir.Value:
        """The block's output for every packed token. [T, H] -> [T, H]."""
        normed = self.layers.norm(hidden, self.name("ln_1"))
        return self._finish(hidden, self._attend(attention, normed, normed))

    def last(self, hidden: ir.Value, pooled: ir.Value, attention: Attention) -> ir.Value:
        """The same for the `pooled` tokens [B] alone, over the keys of all. -> [B, H]."""
        layers, op = self.layers, self.layers.op
        normed = layers.norm(hidden, self.name("ln_1"))
        attended = self._attend(attention, op.Gather(normed, pooled), normed)
        return self._finish(op.Gather(hidden, pooled), attended)

    def _attend(self, attention: Attention, asking: ir.Value, normed: ir.Value) -> ir.Value:
        """Attention of the `asking` tokens over all. [T, H] or [B, H], [T, H] -> as asking."""
        layers, architecture = self.layers, self.layers.architecture
        return attention(
            layers.third(asking, self.name("attn.c_attn"), "query"),
            layers.third(normed, self.name("attn.c_attn"), "key"),
            layers.third(normed, self.name("attn.c_attn"), "value"),
            n_head=architecture.n_head,
            scale=architecture.attention_scales[self.index],
        )

    def _finish(self, hidden: ir.Value, attended: ir.Value) -> ir.Value:
        """Output projection and MLP, each added to the residual stream."""
        layers, op = self.layers, self.layers.op
        hidden = layers.add(hidden, layers.linear(attended, self.name("attn.c_proj")))
        inner = layers.linear(layers.norm(hidden, self.name("ln_2")), self.name("mlp.c_fc"))
        inner = op.Gelu(inner, approximate=layers.architecture.gelu)  # [T, 4 * H]
        return layers.add(hidden, layers.linear(inner, self.name("mlp.c_proj")))

    def name(self, part: str) -> str:
        """The part's name in the checkpoint."""
        return f"h.{self.index}.{part}"


def build(
    architecture: Architecture, weights: Weights, linear: Linear, attention: AttentionForm
) -> ir.Model:
    """The whole graph: `input_ids` int32 [B, S] to `reward` float32 [B, 1].

    Args:
        architecture: sizes and switches.
        weights: float32 arrays under the names of `GPT2ForSequenceClassification`'s
            state dict.
        linear: how linear layers are computed.
        attention: how attention is computed, on what `linear` gives.
    """
    op = Ops()
    weights = without_key_value_biases(weights, architecture.n_layer)
    ids = tensor_input(INPUT_IDS.name, ir.DataType.INT32, ("batch", "sequence"))
    rows = admit(op, ids, architecture.vocab_size, architecture.n_positions)
    tree = prefix_tree(op, rows)
    packed = pack(op, rows, tree)

    layers = Layers(op, architecture, weights, linear)
    *blocks, last = [Block(layers, index) for index in range(architecture.n_layer)]
    hidden = layers.embed(packed)  # [T, H]
    over_tree = attention(op, rows, packed, fresh_stretches(op, rows, tree))
    for block in blocks:
        hidden = block(hidden, over_tree)  # [T, H]
    pooled = pooled_tokens(op, rows, packed)
    over_keys = attention(op, rows, packed, last_tokens(op, rows))
    hidden = last.last(hidden, pooled, over_keys)  # [B, H]

    reward = pool(op, layers.norm(hidden, "ln_f"), weights["score.weight"], rows)
    reward.name = REWARD.name
    reward.type, reward.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(("batch", 1))
    return op.model([ids], [reward])


def pooled_tokens(op: Ops, rows: Rows, packed: Packed) -> ir.Value:
    """Where each row's last token stands in the packed line. -> [B]."""
    last = op.Cast(op.Sub(rows.length, op.int32(1)), to=INT64)
    node = op.GatherElements(packed.node, op.Unsqueeze(last, op.shape(1)), axis=1)  # [B, 1]
    return op.Squeeze(node, op.shape(1))


def pool(op: Ops, hidden: ir.Value, weight: NDArray[np.float32], rows: Rows) -> ir.Value:
    """The reward of each row, NaN where the row was set aside. [B, H] -> [B, 1]."""
    reward = op.Gemm(hidden, op.weight("score.weight", weight), transB=1)
    return op.Where(op.Unsqueeze(rows.admitted, op.shape(1)), reward, op.float32(float("nan")))
