"""The smaller precisions, on a checkpoint whose activations have outlier channels."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sessions import session_of

from reward_contract.cpu import EXACT_INT8, int8_saturates
from reward_export.batches import calibration_groups, groups_of_candidates
from reward_export.checkpoint import Checkpoint, load
from reward_export.errors import ParityError
from reward_export.graph import build
from reward_export.linear import quantise
from reward_export.ops import FLOAT, FLOAT16, Ops, tensor_input
from reward_export.parity import check, open_session
from reward_export.precision import PRECISIONS, without_outliers

Ids = NDArray[np.int32]


@pytest.fixture(scope="module")
def checkpoint(outlier_folder: Path) -> Checkpoint:
    return load(str(outlier_folder))


@pytest.fixture(scope="module")
def smooth_weights(checkpoint: Checkpoint) -> dict[str, NDArray[np.float32]]:
    return without_outliers(checkpoint)


def graph_of(
    checkpoint: Checkpoint, weights: dict[str, NDArray[np.float32]], precision: str
) -> ir.Model:
    """A graph of these weights, unchanged."""
    chosen = PRECISIONS[precision]
    form = chosen.form()
    return build(checkpoint.architecture, weights, chosen.linear, form.attention, form.parts)


def rewards(model: ir.Model, ids: Ids) -> NDArray[np.float32]:
    return session_of(model).run(None, {"input_ids": ids})[0]


def linear(precision: str, x: NDArray[np.float32], weight: NDArray, bias: NDArray) -> NDArray:
    """The output of one layer, run by ONNX Runtime, as float32."""
    op = Ops()
    given_x = tensor_input("x", ir.DataType.FLOAT, ("t", x.shape[1]))
    chosen = PRECISIONS[precision].linear
    cast_x = op.Cast(given_x, to=FLOAT16 if chosen.compute == FLOAT16 else FLOAT)
    y = op.Cast(chosen(op, cast_x, "layer", weight, bias), to=FLOAT)
    y.name, y.type = "y", ir.TensorType(ir.DataType.FLOAT)
    return session_of(op.model([given_x], [y])).run(None, {"x": x})[0]


@given(arrays(np.float32, (5, 3), elements=st.floats(-1e6, 1e6, width=32)))
def test_quantised_weights_are_within_half_a_step(array: NDArray[np.float32]) -> None:
    quantised, scale = quantise(array, axis=0)
    assert quantised.dtype == np.int8
    assert scale.shape == (1, 3)
    assert (np.abs(quantised * scale - array) <= 0.5001 * scale + 1e-30).all()


@pytest.mark.parametrize(("precision", "error"), [("fp32", 1e-5), ("fp16", 2e-3), ("int8", 2e-2)])
def test_a_linear_layer_is_as_close_as_its_precision(precision: str, error: float) -> None:
    rng = np.random.default_rng(0)
    x, weight, bias = (
        rng.standard_normal(shape).astype(np.float32) for shape in ((40, 64), (64, 96), 96)
    )
    x[7], x[8] = 0, x[8] * 1000  # a row of zeros, and a large one next to it
    wanted = x @ weight + bias
    found = linear(precision, x, weight, bias)
    size = np.abs(wanted).max(axis=1, keepdims=True)
    assert (np.abs(found - wanted) <= error * size).all()


def test_an_int8_row_does_not_depend_on_the_rows_beside_it() -> None:
    rng = np.random.default_rng(0)
    x, weight, bias = (
        rng.standard_normal(shape).astype(np.float32) for shape in ((20, 64), (64, 96), 96)
    )
    mates = x.copy()
    mates[1:] *= 1e4
    np.testing.assert_array_equal(
        linear("int8", x, weight, bias)[0], linear("int8", mates, weight, bias)[0]
    )


def test_the_checkpoint_has_outlier_channels(checkpoint: Checkpoint) -> None:
    largest = checkpoint.largest_inputs(calibration_groups())
    assert set(largest) == {
        f"transformer.h.{layer}.{name}"
        for layer in range(3)
        for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }
    for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc"):
        channels = largest[f"transformer.h.1.{name}"]
        assert channels.max() > 8 * np.median(channels)


def test_smoothing_gives_the_same_model(
    checkpoint: Checkpoint, smooth_weights: dict[str, NDArray[np.float32]]
) -> None:
    ids = next(groups_of_candidates())
    found = rewards(graph_of(checkpoint, smooth_weights, "fp32"), ids)
    np.testing.assert_allclose(found, checkpoint.rewards(ids), rtol=0, atol=1e-4)


def error(checkpoint: Checkpoint, weights: dict[str, NDArray[np.float32]]) -> float:
    model = graph_of(checkpoint, weights, "int8")
    session = session_of(model)
    differences = [
        session.run(None, {"input_ids": ids})[0] - checkpoint.rewards(ids)
        for ids in groups_of_candidates()
    ]
    return float(np.sqrt(np.mean(np.square(differences))))


def test_smoothing_brings_int8_closer(
    checkpoint: Checkpoint, smooth_weights: dict[str, NDArray[np.float32]]
) -> None:
    assert error(checkpoint, smooth_weights) < 0.6 * error(checkpoint, checkpoint.weights())


@pytest.mark.parametrize(("precision", "moves"), [("fp16", 2e-3), ("int8", 1e-5)])
def test_a_reward_does_not_depend_on_batch_mates(
    checkpoint: Checkpoint,
    smooth_weights: dict[str, NDArray[np.float32]],
    precision: str,
    moves: float,
) -> None:
    model = graph_of(checkpoint, smooth_weights, precision)
    ids = np.concatenate([batch[:, :32] for batch in list(groups_of_candidates())[:3]])
    together = rewards(model, ids)
    for row in (0, 5, 11, len(ids) - 1):
        alone = rewards(model, ids[row : row + 1])
        np.testing.assert_allclose(together[row], alone[0], rtol=0, atol=moves)


def test_a_residual_stream_beyond_float16_is_refused(checkpoint: Checkpoint) -> None:
    """A channel of 1e5 in every layer; float16 ends at 65504. The norms hide it from the layers."""
    model = copy.deepcopy(checkpoint.model)
    with torch.no_grad():
        model.transformer.wpe.weight[:, 5] += 1e5
    beyond = replace(checkpoint, model=model)
    with pytest.raises(ParityError, match=r"reach 1e\+05, and float16 ends at 65504"):
        PRECISIONS["fp16"].build(beyond)


def test_float16_is_emulated_with_the_rounding_of_a_gpu(checkpoint: Checkpoint) -> None:
    """A runtime that dropped the roundings would give float32's rewards."""
    ids = np.concatenate([batch[:, :32] for batch in list(groups_of_candidates())[:3]])
    wanted = checkpoint.rewards(ids)
    error = np.abs(rewards(PRECISIONS["fp16"].emulate(checkpoint), ids) - wanted).max()
    assert 1e-4 * wanted.std() < error < 0.05 * wanted.std()


def test_channels_that_drown_the_others_are_refused_though_float16_holds_them(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """The first block adds 20,000 to two channels, the last removes it: steps of 16 remain."""
    model = copy.deepcopy(checkpoint.model)
    push = torch.zeros(128)
    push[3], push[70] = 20_000, -20_000
    with torch.no_grad():
        model.transformer.h[0].mlp.c_proj.bias += push
        model.transformer.h[-1].mlp.c_proj.bias -= push
    drowned = replace(checkpoint, model=model)
    assert PRECISIONS["fp16"].build(drowned)  # within the range
    path = tmp_path / "emulated.onnx"
    ir.save(PRECISIONS["fp16"].emulate(drowned), path)
    with pytest.raises(ParityError, match="nothing was published; try --precision fp32"):
        check(open_session(path), drowned, 1024, PRECISIONS["fp16"].tolerance)


def test_int8_is_built_of_smooth_weights(
    checkpoint: Checkpoint, smooth_weights: dict[str, NDArray[np.float32]]
) -> None:
    ids = next(groups_of_candidates())
    found = rewards(PRECISIONS["int8"].build(checkpoint), ids)
    wanted = rewards(graph_of(checkpoint, smooth_weights, "int8"), ids)
    np.testing.assert_array_equal(found, wanted)


def test_int8_weights_are_in_the_graph_of_their_product(checkpoint: Checkpoint) -> None:
    """Elsewhere ONNX Runtime would not find them to make the product exact without VNNI."""
    model, n_products = PRECISIONS["int8"].build(checkpoint), 0
    for graph in (model.graph, *model.graph.subgraphs()):
        for node in graph:
            if node.op_type == "MatMulIntegerToFloat":
                n_products += 1
                _, weight, _, _, _, zero = node.inputs
                assert {weight.name, zero.name} <= set(graph.initializers)
    assert n_products == 6 * checkpoint.architecture.n_layer


def test_processors_without_vnni_get_the_same_rewards_from_the_exact_product(
    checkpoint: Checkpoint,
) -> None:
    model = ir.to_proto(PRECISIONS["int8"].build(checkpoint))
    options = onnxruntime.SessionOptions()
    for entry in EXACT_INT8.items():
        options.add_session_config_entry(*entry)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    ids = next(groups_of_candidates())
    found = session.run(None, {"input_ids": ids})[0]
    wanted = checkpoint.rewards(ids)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=0.3 * wanted.std())


@pytest.mark.parametrize(
    ("cpuinfo", "saturates"),
    [
        ("flags\t\t: sse4_1 avx2 avx512f", True),
        ("flags\t\t: avx2 avx512_vnni", False),
        ("flags\t\t: avx2 avx_vnni", False),
        ("Features\t: fp asimd", False),
    ],
)
def test_what_saturates(tmp_path: Path, cpuinfo: str, saturates: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{cpuinfo}\n")
    assert int8_saturates(str(tmp_path / "cpuinfo")) == saturates
    assert not int8_saturates(str(tmp_path / "absent"))
