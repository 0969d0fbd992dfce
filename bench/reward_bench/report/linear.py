"""The section of the suite `linear`."""

from reward_bench.report.cells import Report

LINEAR = """\
## One linear layer in 8 bits

`python -m reward_bench linear`: {rows} rows through GPT-2 small's 768 x 3072 layer,
on {threads} threads.

| way | speed over float32 | billion operations/s | largest error, in standard deviations |
|---|---|---|---|
{lines}
"""


def section(report: Report) -> str:
    """The section as Markdown: each way's speed and error."""
    lines = "\n".join(
        f"| {name} | {way['speed_up']:.2f} | {way['gops']:.0f} | {way['max_error_in_stds']:.3f} |"
        for name, way in report["ways"].items()
    )
    return LINEAR.format(rows=report["rows"], threads=report["threads"], lines=lines)
