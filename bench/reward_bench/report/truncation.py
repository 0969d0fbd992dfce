"""The section of the suite `truncation`."""

from reward_bench.report.cells import Report

TRUNCATION = """\
## Truncation policies

`python -m reward_bench truncation`: {groups} real conversations of more than 256 tokens,
best-of-{candidates}, float32 in process on {threads} threads; {checkpoint}.

| policy | ms per group | tokens that differ |
|---|---|---|
{lines}

`shared_context` is {speed_up:.1f} times as fast (over the groups: 10th percentile {low:.1f}, median
{middle:.1f}, 90th percentile {high:.1f}). It ranks another candidate first in {other_best} of
{groups} groups; rewards differ by {mean_difference:.2f} on average.
"""


def section(report: Report) -> str:
    """The section as Markdown: both truncation policies."""
    lines = "\n".join(
        f"| {name} | {report['ms_a_group'][name]:.0f} | "
        f"{report['unique_tokens_a_group'][name]:.0f} |"
        for name in report["ms_a_group"]
    )
    low, middle, high = report["speed_up_of_groups"]
    return TRUNCATION.format(lines=lines, low=low, middle=middle, high=high, **report)
