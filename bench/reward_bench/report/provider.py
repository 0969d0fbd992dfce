"""The section of the suite `provider`."""

from reward_bench.provider.table import as_text
from reward_bench.report.cells import Report, machine

PROVIDER = """\
## The graphs for GPUs on {device}

`python -m reward_bench provider --device {kind} --shape {shape}`, {took} s, ONNX Runtime
{version}, {machine}. *Predicted* figures are from a model of the
device with guessed efficiencies, those *by measured kernels* from the same model with the
efficiencies of the lines *alone*.

{table}
"""


def section(report: Report) -> str:
    """The section as Markdown: the table, and what it was measured on."""
    found = report["steps"]["device"].get("found", {})
    return PROVIDER.format(
        device=found.get("name", report["cpu"]),
        kind=report["device"],
        shape=report.get("shape", "of a checkpoint"),
        took=report["took_s"],
        version=found.get("onnxruntime", "unknown"),
        machine=machine(report),
        table=as_text(report["table"]),
    )
