"""What was measured, next to what was predicted: a table, and which figures are wrong."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from reward_bench.provider.batches import cases
from reward_bench.provider.predictions import Predictions
from reward_bench.provider.steps import Outcome

FLAT = 1.05  # times the memory that was held after half of the batches
FUSED = {"FLASH_ATTENTION", "EFFICIENT_ATTENTION"}  # the only kernels that attention may use
ALONE = {
    "product_tflops": "product alone, TFLOP/s",
    "gather_gbs": "gather alone, GB/s",
    "padded_attention_tflops": "padded attention alone, TFLOP/s",
    "varlen_attention_tflops": "varlen attention alone, TFLOP/s",
}
HEAD = """\
| | predicted | by measured kernels | measured | |
|---|---|---|---|---|
"""

Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """A line of the table, as text.

    Attributes:
        what: what was measured.
        predicted: the prediction by guessed efficiencies, or the value required.
        by_measured: the prediction by the efficiencies of the kernels that were measured alone.
        measured: the figure, or the error.
        is_right: whether the figure is as required. Any speed is right.
    """

    what: str
    measured: str
    predicted: str = "-"
    by_measured: str = "-"
    is_right: bool = True


def lines(outcomes: Mapping[str, Outcome]) -> list[Line]:
    """The table of all steps, in their order. A step that failed is one line, its error."""
    found = {step: outcome["found"] for step, outcome in outcomes.items() if "found" in outcome}
    predictions, table = Predictions(found), list[Line]()
    for step, outcome in outcomes.items():
        if step not in found:
            table.append(Line(step, outcome["error"], is_right=False))
        elif step in SECTIONS:
            table += SECTIONS[step](found[step], predictions)
    return table


def as_text(table: list[Mapping[str, Any]]) -> str:
    """The table as Markdown, from lines as `as_json` returns them."""
    rows = (
        f"| {line['what']} | {line['predicted']} | {line['by_measured']} | {line['measured']} | "
        f"{'' if line['is_right'] else '**wrong**'} |"
        for line in table
    )
    return HEAD + "\n".join(rows)


def as_json(table: list[Line]) -> list[Mapping[str, Any]]:
    """The table for the result file."""
    return [asdict(line) for line in table]


def _by_form(found: Figures, what: str, line: Callable[[str, Figures], Line]) -> Iterator[Line]:
    """A line for each form: its error, or what `line` makes of its figures."""
    for form, figures in found.items():
        label = f"{what}, {form}"
        if "error" in figures:
            yield Line(label, figures["error"], is_right=False)
        else:
            yield line(label, figures)


def _every_batch(found: Figures, _predictions: Predictions) -> Iterator[Line]:
    def line(label: str, figures: Figures) -> Line:
        n, failed, kernels = figures["batches"], figures["failed"], figures["attention"]
        said = ", ".join(sorted(kernels)) or "kernel not named"
        first = "".join(f"; {name}: {error}" for name, error in [*failed.items()][:1])
        is_right = not failed and set(kernels) <= FUSED
        measured = f"{n - len(failed)} of {n}, {said}{first}"
        return Line(label, measured, f"{n} of {n}, fused", is_right=is_right)

    return _by_form(found, "batches answered", line)


def _alone(found: Figures, predictions: Predictions) -> Iterator[Line]:
    for kernel, figures in found.items():
        predicted = _number(predictions.alone(kernel))
        if "error" in figures:
            yield Line(ALONE[kernel], figures["error"], predicted, is_right=False)
        else:
            yield Line(ALONE[kernel], _number(figures["value"]), predicted)


def _parity(found: Figures, _predictions: Predictions) -> Iterator[Line]:
    def line(label: str, figures: Figures) -> Line:
        difference, limit = figures["max_difference"], figures["limit"]
        measured = (
            f"{difference:.2g}; rank correlation {figures['spearman']:.4f}, same best "
            f"{figures['best_agreement']:.0%}, effect of batch mates {figures['batch_effect']:.1g}"
        )
        # phrased so that NaN is wrong
        return Line(label, measured, f"at most {limit:.2g}", is_right=difference <= limit)

    return _by_form(found, "largest difference from float32 on the CPU", line)


def _throughput(found: Figures, predictions: Predictions) -> Iterator[Line]:
    known = cases()
    for form, figures in found.items():
        if "error" in figures:
            yield Line(f"throughput, {form}", figures["error"], is_right=False)
            continue
        for name, ms in figures["ms"].items():
            by_guess, by_measured = predictions.ms(known[name], form)
            measured = f"{_number(ms)} ({len(known[name]) / ms * 1e3:.0f} rows/s)"
            what = f"{name}, {form}, ms"
            yield Line(what, measured, _number(by_guess), _number(by_measured))
        yield Line(f"best of 4 in process, {form}, ms", _latency(figures["best_of_4"]))


def _memory(found: Figures, _predictions: Predictions) -> Iterator[Line]:
    def line(label: str, figures: Figures) -> Line:
        mib = [point["mib"] for point in figures["seen"]]
        half, last = mib[(len(mib) - 1) // 2], mib[-1]
        measured = f"{mib[0]:.0f}, {half:.0f} after half, {last:.0f} at the end"
        most = FLAT * half
        return Line(label, measured, f"at most {most:.0f} at the end", is_right=last <= most)

    return _by_form(found, "memory over batches of changing shape, MiB", line)


def _triton(found: Figures, _predictions: Predictions) -> Iterator[Line]:
    right, n = found["golden_rows_right"], found["golden_rows"]
    yield Line("Triton, golden rows right", str(right), str(n), is_right=right == n)
    yield Line("Triton, short chats, rows/s", _number(found["rows_per_s"]))
    yield Line("Triton, best of 4, ms", _latency(found["best_of_4"]))


def _latency(percentiles: Mapping[str, float]) -> str:
    return f"p50 {_number(percentiles['p50'])}, p99 {_number(percentiles['p99'])}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004 three digits


SECTIONS: dict[str, Callable[[Figures, Predictions], Iterator[Line]]] = {
    "every batch": _every_batch,
    "kernels alone": _alone,
    "parity": _parity,
    "throughput": _throughput,
    "memory": _memory,
    "Triton": _triton,
}
