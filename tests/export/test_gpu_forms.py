"""The exported files for GPUs, run on the CPU with reference versions of the CUDA operators.

Arithmetic is float32 and float64 here: the tests show that the plan gives each query its keys.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from reward_export.checkpoint import Checkpoint, load
from reward_export.precision import PADDED, PRECISIONS, VARLEN, Form

PAD = 50256
TILE = 64
Ids = NDArray[np.int32]
Scorer = Callable[[Ids], NDArray[np.float32]]


def softmax(scores: NDArray) -> NDArray:
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


class SkipLayerNormalization(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, skip, scale, shift, bias=None, epsilon=None):  # noqa: ANN001, ANN202
        total = x + skip + (0 if bias is None else bias)
        mean = total.mean(-1, keepdims=True)
        spread = np.sqrt(((total - mean) ** 2).mean(-1, keepdims=True) + epsilon)
        nothing = np.zeros(0, x.dtype)
        return (total - mean) / spread * scale + shift, nothing, nothing, total


class FastGelu(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, bias):  # noqa: ANN001, ANN202
        x = x + bias
        return (
            (x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2).astype(x.dtype),
        )


class Pad(OpRun):
    """ONNX's own operator: the reference evaluator lacks negative pads, which crop."""

    def _run(self, x, pads, value, mode=None):  # noqa: ANN001, ANN202, ARG002
        before, after = np.split(pads, 2)
        whole = np.pad(x, np.maximum([*zip(before, after, strict=True)], 0), constant_values=value)
        kept = [
            slice(max(-first, 0), n - max(-last, 0))
            for first, last, n in zip(before, after, whole.shape, strict=True)
        ]
        return (whole[tuple(kept)],)


class MultiHeadAttention(OpRun):
    """With added scores, or with a mask of 3 A + 2 numbers whose rules are checked strictly."""

    op_domain = "com.microsoft"

    def _run(  # noqa: ANN202
        self,
        query: Any,
        key: Any,
        value: Any,
        bias: Any = None,
        mask: Any = None,
        scores: Any = None,
        num_heads: int = 0,
        scale: float = 0.0,
        unidirectional: int | None = None,
        mask_filter_value: float | None = None,  # noqa: ARG002 the operator has it
    ):
        assert bias is None
        size = query.shape[-1] // num_heads
        q, k, v = (x.reshape(-1, num_heads, size) for x in (query, key, value))
        if scores is not None:
            a, c, n = len(query), query.shape[1], key.shape[1]
            assert c % 8 == n % 8 == 0
            q, k, v = (x.reshape(a, -1, num_heads, size) for x in (q, k, v))
            seen = np.einsum("aqhd,akhd->ahqk", q, k) * scale + scores
            return (np.einsum("ahqk,akhd->aqhd", softmax(seen), v).reshape(query.shape),)
        assert unidirectional == 1
        found = self._varlen(q, k, v, mask, query.shape, scale)
        return (found.reshape(query.shape),)

    @staticmethod
    def _varlen(q: Any, k: Any, v: Any, mask: Any, shape: tuple[int, ...], scale: float) -> Any:
        a, c, _ = shape
        assert mask.dtype == np.int32
        assert mask.shape == (3 * a + 2,)
        n_keys, begin, keys = mask[:a], mask[a : 2 * a + 1], mask[2 * a + 1 :]
        assert begin[0] == keys[0] == 0
        assert (begin[a], keys[a]) == (len(q), len(k))
        assert (np.diff(begin) >= 0).all()
        assert (np.diff(keys) >= n_keys).all()  # inside their own interval
        found = np.full_like(q, np.nan)  # what no chunk reaches
        for i in range(a - 1):  # the last one is for spare tokens, which nothing reads
            mine, own = slice(begin[i], begin[i + 1]), slice(keys[i], keys[i] + n_keys[i])
            n = begin[i + 1] - begin[i]
            assert 0 < n <= min(n_keys[i], TILE * -(-c // TILE))
            seen = np.einsum("qhd,khd->hqk", q[mine], k[own]) * scale
            hidden = np.arange(n_keys[i]) > np.arange(n)[:, None] + n_keys[i] - n
            seen = softmax(np.where(hidden, -np.inf, seen))
            found[mine] = np.einsum("hqk,khd->qhd", seen, v[own])
        return found


def in_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """The exported float16 graph with all float16 turned into float32; the plan is unchanged."""
    half, full = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    for tensor in model.graph.initializer:
        if tensor.data_type == half:
            array = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == half:
                attribute.i = full
    return model


@pytest.fixture(scope="module")
def checkpoint(checkpoint_folder: Path) -> Checkpoint:
    """A checkpoint of weights that float16 holds exactly, so the file has the same ones."""
    model = load(str(checkpoint_folder))
    for name, tensor in model.model.state_dict().items():
        tensor.copy_(tensor.half().float())
        if name.endswith("c_attn.bias"):  # folded into another bias, it would be rounded there
            tensor[-len(tensor) // 3 :] = 0
    return model


@pytest.fixture(scope="module", params=[PADDED, VARLEN], ids=lambda form: form.name)
def scorer(request: pytest.FixtureRequest, checkpoint: Checkpoint) -> Scorer:
    form: Form = request.param
    model = in_float32(ir.to_proto(PRECISIONS["fp16"].build(checkpoint, form)))
    operators = [Pad, SkipLayerNormalization, FastGelu, MultiHeadAttention]
    evaluator = ReferenceEvaluator(model, new_ops=operators)

    def rewards(ids: Ids) -> NDArray[np.float32]:
        with np.errstate(invalid="ignore"):  # spare tokens may be anything
            return evaluator.run(None, {"input_ids": ids})[0]

    return rewards


@st.composite
def batches(draw: st.DrawFn) -> Ids:
    """Rows that share prefixes in every way, short stretches and long ones."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_rows, width = draw(st.integers(1, 24)), draw(st.sampled_from([1, 3, 8, 40, 90, 200]))
    ids = rng.choice(draw(st.sampled_from([2, 5, 5000])), (n_rows, width))
    for row in range(1, n_rows):
        shared = rng.integers(0, width + 1)
        ids[row, :shared] = ids[rng.integers(0, row), :shared]
    ends = rng.integers(0, width + 1, (n_rows, 1))
    return np.where(np.arange(width) < ends, ids, PAD).astype(np.int32)


@settings(max_examples=60)
@given(ids=batches())
def test_rewards_are_those_of_float32(scorer: Scorer, checkpoint: Checkpoint, ids: Ids) -> None:
    np.testing.assert_allclose(scorer(ids), checkpoint.rewards(ids), rtol=0, atol=1e-5)


@pytest.mark.parametrize("lengths", [(700, 64, 65, 63, 128, 1), (1024,), (217, 88, 88), (129,) * 9])
def test_long_stretches(scorer: Scorer, checkpoint: Checkpoint, lengths: tuple[int, ...]) -> None:
    rng = np.random.default_rng(sum(lengths))
    ids = rng.integers(0, PAD, (len(lengths), max(lengths))).astype(np.int32)
    ids = np.where(np.arange(ids.shape[1]) < np.array(lengths)[:, None], ids, PAD).astype(np.int32)
    np.testing.assert_allclose(scorer(ids), checkpoint.rewards(ids), rtol=0, atol=1e-5)


def test_rows_that_cannot_be_scored_answer_nan_alone(
    scorer: Scorer, checkpoint: Checkpoint
) -> None:
    rng = np.random.default_rng(0)
    ids = np.full((5, 1030), PAD, np.int32)
    ids[:, :30] = rng.integers(0, PAD, (5, 30))
    ids[1, 3], ids[2, 5], ids[3] = -1, PAD + 1, 7
    found = scorer(ids)
    assert np.isnan(found[:, 0]).tolist() == [False, True, True, True, False]
    wanted = checkpoint.rewards(ids[[0, 4], :30])
    np.testing.assert_allclose(found[[0, 4]], wanted, rtol=0, atol=1e-5)
