"""Predictions for the device that was measured, by guessed efficiencies and by measured ones."""

from collections.abc import Mapping, Sequence
from typing import Any

from reward_bench.provider.roofline import (
    Efficiencies,
    Gpu,
    Model,
    Row,
    gpu_named,
    guesses,
    plan,
    seconds,
)

Found = Mapping[str, Any]

KERNELS = ("product_tflops", "gather_gbs", "padded_attention_tflops", "varlen_attention_tflops")
"""Figures of the step that measures kernels alone."""


class Predictions:
    """What the model of `roofline` predicts, as far as the steps have found what it needs.

    Args:
        found: figures of the steps that succeeded, by name.
    """

    def __init__(self, found: Mapping[str, Found]) -> None:
        self._gpu = gpu_named(str(found.get("device", {}).get("name", "")))
        size = found.get("graphs")
        self._model = Model(size["n_layer"], size["n_embd"]) if size else None
        self._alone = found.get("kernels alone", {})

    def alone(self, kernel: str) -> float | None:
        """What one of `KERNELS` is guessed to reach; None for an unknown device."""
        if self._gpu is None:
            return None
        guessed = guesses(self._gpu)
        by_name = {
            "product_tflops": guessed.product * self._gpu.peak_tflops,
            "gather_gbs": guessed.gather * self._gpu.bandwidth_tbs * 1e3,
        }
        return by_name.get(kernel, guessed.attention)

    def ms(self, rows: Sequence[Row], form: str) -> tuple[float | None, float | None]:
        """Milliseconds of a run by guesses and by measured efficiencies; only for float16 forms."""
        precision, attention = form.split()
        gpu, model = self._gpu, self._model
        if gpu is None or model is None or precision != "fp16":
            return None, None
        work, measured = plan(rows, attention), self._measured(gpu, attention)

        def ms(efficiencies: Efficiencies) -> float:
            return 1e3 * seconds(gpu, efficiencies, model, attention, work)

        return ms(guesses(gpu)), ms(measured) if measured else None

    def _measured(self, gpu: Gpu, attention: str) -> Efficiencies | None:
        names = ("product_tflops", "gather_gbs", f"{attention}_attention_tflops")
        product, gather, attending = (self._alone.get(n, {}).get("value") for n in names)
        if not (product and gather and attending):
            return None
        return Efficiencies(
            product / gpu.peak_tflops, gather / (gpu.bandwidth_tbs * 1e3), attending
        )
