"""The device and the graphs that the steps have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime
from onnxruntime import InferenceSession

from reward_bench.provider.cuda import cuda_options
from reward_bench.provider.kernels import Providers
from reward_bench.provider.steps import short
from reward_bench.suite import Setting
from reward_export.precision import PRECISIONS, Form, Precision

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

Figures = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What the steps have in common.

    Attributes:
        setting: of the suite.
        folder: with the graphs, once the step `graphs` has written them.
        n_batches: of changing shape.
        most_positions: rows x columns of the largest batch.
    """

    setting: Setting
    folder: Path
    n_batches: int
    most_positions: int

    @property
    def providers(self) -> Providers:
        """ONNX Runtime's providers, as a server sets them."""
        if self.setting.device == "cpu":
            return [(CPU, {})]
        if hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()  # CUDA installed by pip is not on the library path
        return [(CUDA, cuda_options()), (CPU, {})]

    def forms(self) -> dict[str, tuple[Precision, Form]]:
        """The graphs for CUDA that this device can run, by name."""
        return {
            f"{precision.name} {form.name}": (precision, form)
            for precision in PRECISIONS.values()
            for form in precision.forms
            if form.device == "cuda" and self.setting.device in form.runs_on
        }

    def graph(self, form: str) -> Path:
        """A form's file."""
        return self.folder / f"{form}.onnx"

    def open(self, graph: Path) -> InferenceSession:
        """A session on the device.

        Raises:
            RuntimeError: ONNX Runtime did not start its provider.
        """
        providers = self.providers
        session = InferenceSession(str(graph), providers=providers)
        if session.get_providers()[0] != providers[0][0]:  # ONNX Runtime only warns
            raise RuntimeError(f"ONNX Runtime could not start {providers[0][0]}")
        return session

    def each_form(
        self, measure: Callable[[str], Figures], precisions: str = "fp32 fp16"
    ) -> Figures:
        """The figures of a measurement for each form; an error concerns only its own form."""
        forms = [
            name for name, (precision, _) in self.forms().items() if precision.name in precisions
        ]
        return {form: tried(partial(measure, form)) for form in forms}


def tried(measure: Callable[[], Figures]) -> Figures:
    """The figures of a measurement, or its error."""
    try:
        return measure()
    except Exception as error:  # noqa: BLE001 whatever it is, it is the result
        return {"error": short(error)}
