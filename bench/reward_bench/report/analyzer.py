"""The section of the suite `analyzer`."""

from reward_bench.report.cells import Report, machine, span

ANALYZER = """\
## Triton's own load generator

`python -m reward_bench analyzer --shape {shape}`: perf_analyzer 2.51.0 and our load generator, in
turn on the same server, {in_flight} calls of best-of-8 in flight, {machine}.

| chats | rows/s, perf_analyzer | rows/s, ours | ours / theirs | p50 ms, perf_analyzer | ours |
|---|---|---|---|---|---|
{lines}
"""


def section(report: Report) -> str:
    """The section as Markdown."""
    lines = "\n".join(
        f"| {regime} | {span(by['rows_a_second_perf_analyzer'])} | "
        f"{span(by['rows_a_second_ours'])} | {span(by['rows_ratio'], 2)} | "
        f"{span(by['p50_ms_perf_analyzer'])} | {span(by['p50_ms_ours'])} |"
        for regime, by in report.items()
        if regime in {"short", "long"}
    )
    return ANALYZER.format(
        shape=report["shape"], in_flight=report["in_flight"], machine=machine(report), lines=lines
    )
