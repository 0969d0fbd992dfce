"""The values of `--precision`, each with everything that follows from it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from reward_export.attention import AttentionForm, Looped, Padded
from reward_export.batches import calibration_groups, groups_of_candidates
from reward_export.errors import ExportError, ParityError
from reward_export.float16 import RoundedLayers, RoundedLinear, RoundedLooped
from reward_export.graph import Architecture, FusedLayers, Layers, Weights, build
from reward_export.linear import Float16Linear, Float32Linear, Int8Linear, Linear
from reward_export.smooth import smoothed
from reward_export.varlen import Varlen

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# the CUDA provider's options in config.pbtxt's accelerator block that rewards depend on
CUDA_OPTIONS = {"use_tf32": "0", "enable_skip_layer_norm_strict_mode": "1", "sdpa_kernel": "3"}
DEVICES_KEY = "devices"  # in the file's metadata: the kinds of device that it is for

Batches: TypeAlias = Iterable[NDArray[np.int32]]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Limits that the rewards of a precision have to stay within.

    Attributes:
        max_difference: largest absolute difference of a reward from PyTorch's.
        in_reward_stds: whether that is in standard deviations of the checkpoint's rewards,
            rather than absolute.
        spearman: least rank correlation of all rewards with PyTorch's.
        best_agreement: least share of groups whose best candidate is PyTorch's.
        batch_effect: how far a reward may change with its batch mates.
        batch_effect_in_reward_stds: whether that is in standard deviations of the rewards.
    """

    max_difference: float
    spearman: float
    best_agreement: float
    in_reward_stds: bool = False
    batch_effect: float = 1e-5
    batch_effect_in_reward_stds: bool = False


class Model(Protocol):
    """What preparing weights needs of a checkpoint; `checkpoint.Checkpoint` is one."""

    @property
    def architecture(self) -> Architecture:
        """Sizes and switches."""

    def weights(self) -> Weights:
        """The state dict as float32 arrays."""

    def largest_inputs(self, batches: Batches) -> Mapping[str, NDArray[np.float32]]:
        """The largest magnitude in each input channel of each linear module of the blocks."""

    def largest_activation(self, batches: Batches) -> float:
        """The largest magnitude around a linear module or in the residual stream."""


@dataclass(frozen=True, slots=True)
class Form:
    """How a precision is computed on a kind of device.

    Attributes:
        device: `cpu` or `cuda`.
        name: distinguishes it from the other forms for the device.
        attention: how attention is computed.
        parts: which operators the blocks are made of.
        runs_on: kinds of device that can run it at all; a server refuses it on others.
    """

    device: str
    name: str
    attention: AttentionForm
    parts: type[Layers]
    runs_on: tuple[str, ...]


LOOPED = Form("cpu", "looped", Looped, Layers, ("cpu",))
PADDED = Form("cuda", "padded", Padded, FusedLayers, ("cuda", "cpu"))
VARLEN = Form("cuda", "varlen", Varlen, FusedLayers, ("cuda",))


@dataclass(frozen=True, slots=True)
class Emulation:
    """A graph for the CPU that gives the rewards that a GPU would give."""

    linear: Linear
    attention: AttentionForm
    parts: type[Layers]


@dataclass(frozen=True, slots=True)
class Precision:
    """A way to compute the graph.

    Attributes:
        name: as the command line and the manifest have it.
        linear: how linear layers and the token embedding are computed.
        forms: how it is computed on each kind of device; the first is the default.
        tolerance: limits that the rewards have to stay within before a graph is published.
        bytes_per_weight: in the file.
        prepare: returns the weights to build the graph from, for a precision that has to look at
            activations first; if None, they are used unchanged.
        emulation: what is compared with PyTorch if there is no GPU and the graph's own rewards
            on a CPU say nothing about those on a GPU.
    """

    name: str
    linear: Linear
    forms: tuple[Form, ...]
    tolerance: Tolerance
    bytes_per_weight: int
    prepare: Callable[[Model], Weights] | None = None
    emulation: Emulation | None = None

    def form(self, device: str | None = None, name: str | None = None) -> Form:
        """The form for a kind of device, and of this name if there are several.

        Raises:
            ExportError: there is no such form.
        """
        for form in self.forms:
            if device in {None, form.device} and name in {None, form.name}:
                return form
        known = ", ".join(f"--device {form.device} --attention {form.name}" for form in self.forms)
        raise ExportError(
            f"{self.name} has no form for device {device or 'any'} and attention {name or 'any'}; "
            f"it has {known}"
        )

    def build(self, model: Model, form: Form | None = None) -> ir.Model:
        """The checkpoint's graph in this precision; in its first form if none is given.

        Raises:
            ParityError: the precision cannot hold the checkpoint's activations.
        """
        form = form or self.form()
        weights = self.prepare(model) if self.prepare else model.weights()
        graph = build(model.architecture, weights, self.linear, form.attention, form.parts)
        graph.metadata_props[DEVICES_KEY] = " ".join(form.runs_on)
        return graph

    def emulate(self, model: Model) -> ir.Model:
        """The graph that is compared with PyTorch if there is no GPU.

        Raises:
            ExportError: the precision has none, because its own graph can be compared on a CPU.
        """
        own = self.emulation
        if own is None:
            raise ExportError(f"{self.name} is not emulated; its own graph is compared")
        return build(model.architecture, model.weights(), own.linear, own.attention, own.parts)


def within_float16(model: Model) -> Weights:
    """The weights, unchanged, after a check that activations stay far below float16's limit.

    Raises:
        ParityError: activations come near the limit, beyond which a GPU would return NaN.
    """
    check_float16_range(model.largest_activation(groups_of_candidates()))
    return model.weights()


def check_float16_range(largest: float) -> None:
    """Refuse float16 for activations that come near its limit.

    Args:
        largest: largest magnitude seen in what float16 would hold.

    Raises:
        ParityError: `largest` is more than half of float16's largest number.
    """
    limit = float(np.finfo(np.float16).max) / 2
    if not largest <= limit:
        raise ParityError(
            f"activations of this checkpoint reach {largest:.3g}, and float16 ends at "
            f"{2 * limit:.0f}; nothing was published; try --precision fp32",
            difference=largest,
            tolerance=limit,
        )


def without_outliers(model: Model) -> Weights:
    """The weights with outlier channels moved out of the activations: see `smooth`."""
    largest = model.largest_inputs(calibration_groups())
    return smoothed(model.weights(), largest, model.architecture.n_layer)


PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision(
            "fp32",
            Float32Linear(),
            (LOOPED, PADDED),
            Tolerance(1e-4, spearman=0.999, best_agreement=0.95),  # about 1e-6 is usual
            bytes_per_weight=4,
        ),
        Precision(
            "fp16",
            Float16Linear(),
            (PADDED, VARLEN),
            Tolerance(
                0.05,
                in_reward_stds=True,
                spearman=0.999,
                best_agreement=0.95,
                # sums that are split differently are rounded differently: see docs/precision.md
                batch_effect=0.02,
                batch_effect_in_reward_stds=True,
            ),
            bytes_per_weight=2,
            prepare=within_float16,
            emulation=Emulation(RoundedLinear(), RoundedLooped, RoundedLayers),
        ),
        Precision(
            "int8",
            Int8Linear(),
            (LOOPED,),
            Tolerance(0.3, in_reward_stds=True, spearman=0.99, best_agreement=0.85),
            bytes_per_weight=1,
            prepare=without_outliers,
        ),
    )
}
"""What `--precision` takes."""
