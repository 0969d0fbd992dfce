"""What `--precision` chooses: one value each, with everything that follows from it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from reward_export.attention import AttentionForm, Batched, Looped
from reward_export.batches import calibration_groups, groups_of_candidates
from reward_export.errors import ParityError
from reward_export.graph import Architecture, Weights, build
from reward_export.linear import Float16Linear, Float32Linear, Int8Linear, Linear
from reward_export.smooth import smoothed

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

Batches: TypeAlias = Iterable[NDArray[np.int32]]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What a precision is held to.

    Attributes:
        max_difference: largest absolute difference of a reward from PyTorch's.
        in_reward_stds: whether that is in standard deviations of the checkpoint's rewards,
            rather than absolute.
        spearman: least rank correlation of all rewards with PyTorch's.
        best_agreement: least share of groups whose best candidate is PyTorch's.
        batch_effect: how far a reward may move with its batch mates, absolute.
    """

    max_difference: float
    spearman: float
    best_agreement: float
    in_reward_stds: bool = False
    batch_effect: float = 1e-5


class Model(Protocol):
    """A checkpoint, as far as its weights are prepared by it; `checkpoint.Checkpoint` is one."""

    @property
    def architecture(self) -> Architecture:
        """Sizes and switches."""

    def weights(self) -> Weights:
        """The state dict as float32 arrays."""

    def largest_inputs(self, batches: Batches) -> Mapping[str, NDArray[np.float32]]:
        """The largest magnitude in each input channel of each linear module of the blocks."""

    def largest_activation(self, batches: Batches) -> float:
        """The largest magnitude that goes into or comes out of a linear module of the blocks."""


@dataclass(frozen=True, slots=True)
class Precision:
    """A way to compute the graph.

    Attributes:
        name: as the command line and the manifest have it.
        linear: what linear layers and the token embedding are.
        attention: what attention is.
        tolerance: what the rewards are held to before they are published.
        bytes_per_weight: in the file.
        prepare: the weights that the graph is built from, for a precision that has to look at
            activations first; they are taken as they are if None.
        providers: ONNX Runtime's, the first that is installed is compared with PyTorch.
    """

    name: str
    linear: Linear
    attention: AttentionForm
    tolerance: Tolerance
    bytes_per_weight: int
    prepare: Callable[[Model], Weights] | None = None
    providers: tuple[str, ...] = (CPU,)

    def build(self, model: Model) -> ir.Model:
        """The checkpoint's graph in this precision.

        Raises:
            ParityError: the precision cannot hold the checkpoint's activations.
        """
        weights = self.prepare(model) if self.prepare else model.weights()
        return build(model.architecture, weights, self.linear, self.attention)


def within_float16(model: Model) -> Weights:
    """The weights as they are, once activations are known to stay far from float16's end.

    Raises:
        ParityError: they come near it, and a GPU would answer NaN.
    """
    check_float16_range(model.largest_activation(groups_of_candidates()))
    return model.weights()


def check_float16_range(largest: float) -> None:
    """Refuse float16 for activations that come near its end.

    Args:
        largest: magnitude seen in what float16 would hold.

    Raises:
        ParityError: it is more than half of float16's largest number.
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
            Looped,
            Tolerance(1e-4, spearman=0.999, best_agreement=0.95),  # about 1e-6 is usual
            bytes_per_weight=4,
        ),
        Precision(
            "fp16",
            Float16Linear(),
            Batched.of_float16,  # for GPUs, which like few large kernels
            Tolerance(0.05, in_reward_stds=True, spearman=0.999, best_agreement=0.95),
            bytes_per_weight=2,
            prepare=within_float16,
            # the CPU computes float16 in float32, and so cannot show what float16 does
            providers=(CUDA, CPU),
        ),
        Precision(
            "int8",
            Int8Linear(),
            Looped,
            Tolerance(0.3, in_reward_stds=True, spearman=0.99, best_agreement=0.85),
            bytes_per_weight=1,
            prepare=without_outliers,
        ),
    )
}
"""What `--precision` takes."""
