"""The section of the suite `client`."""

from reward_bench.report.cells import Report

CLIENT = """\
## The client

`python -m reward_bench client` on {cpu}, against a server in another process that answers at once.

Milliseconds of a best-of-8 call over short real conversations, {calls} calls. *Own* is the time
that the client spends outside of its RPCs: tokenising, checking, ranking.

| client | own, median | own, p99 | whole, median |
|---|---|---|---|
{own}

Milliseconds to tokenise a best-of-8, by the size of its context:

| context | ms |
|---|---|
{tokenising}

Resident megabytes at the start, in the middle and at the end of {memory_calls} calls by one client:

| client | start | middle | end |
|---|---|---|---|
{memory}

Calls per second of 64 tasks that share one client, by its number of connections: {rates}.
"""


def section(report: Report) -> str:
    """The section as Markdown: what the client costs by itself."""
    own = "\n".join(
        f"| {name} | {ms['own_median']:.2f} | {ms['own_p99']:.2f} | {ms['whole_median']:.2f} |"
        for name, ms in report["best_of_8_ms"].items()
    )
    tokenising = "\n".join(f"| {way} | {ms:.2f} |" for way, ms in report["tokenising_ms"].items())
    memory = "\n".join(
        f"| {name} | {sizes[0]:.0f} | {sizes[len(sizes) // 2]:.0f} | {sizes[-1]:.0f} |"
        for name, sizes in report["memory_mb"].items()
    )
    rates = ", ".join(
        f"{rate:.0f} with {n}" for n, rate in report["calls_a_second_by_channels"].items()
    )
    return CLIENT.format(
        cpu=report["cpu"],
        calls=report["calls"],
        memory_calls=f"{report['memory_calls']:,}",
        own=own,
        tokenising=tokenising,
        memory=memory,
        rates=rates,
    )
