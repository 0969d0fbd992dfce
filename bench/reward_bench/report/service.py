"""The section of the suite `service`."""

from collections.abc import Iterator

from reward_bench.report.cells import Report, outcomes, quantiles, span

SERVICE = """\
## As shipped: GPT-2 {shape} on {cpu}

`python -m reward_bench service --shape {shape} --precision {precision}`, {took} s, {device}, seed
{seed}, load average {load:.1f} before the run. The configuration is the one in the repository, with
bounds, timeouts, priorities and two instances; `max_batch_size` is {max_batch_size}. Brackets give
the smallest and largest of {rounds} rounds. Every answer is checked.

Best-of-8 calls of about the same cost from callers that never pause, at the priority of bulk work,
whose calls may wait so long that none is refused:

| callers | rows per second |
|---|---|
{callers}

The largest number of callers gets {most_over_best} times the throughput of the best number. The
same number of callers at the priority of interactive calls, none of which waits for more than ten
seconds: {interactive}.

Latency in milliseconds of the same calls with Poisson arrivals, at shares of the capacity, which is
{capacity:.1f} calls per second. *Ideal* is a server that executes the same calls one after the
other without a pause, in {execution:.0f} ms each, which one call alone takes here: calls that
arrive together wait for each other on any server. *Unanswered* is the longest time in which calls
waited and none was answered. An execution of {max_batch_size} rows takes {longest:.0f} ms at most;
*stalls* is the number of such times that were more than 400 ms longer than that.

{stalls}

Bulk work alongside 16 callers of best-of-8 that never pause; [operations.md](operations.md) says
what follows from it:

| bulk work | chats, calls per second | bulk rows per second |
|---|---|---|
{bulk}
"""


COLUMNS = (
    *("offered", "server", "calls", "outcomes", "p50", "p90", "p95", "p99", "largest"),
    *("p99 over p50", "unanswered", "stalls"),
)


def section(report: Report) -> str:
    """The section as Markdown."""
    callers, stalls = report["callers"], report["stalls"]
    most = callers["interactive_most"]
    names = ("shape", "cpu", "precision", "device", "seed", "rounds", "max_batch_size")
    return SERVICE.format(
        **{name: report[name] for name in names},
        took=report["took_s"],
        load=report["load_average_before"],
        callers="\n".join(
            f"| {n} | {span(rates, 1)} |" for n, rates in callers["rows_per_second"].items()
        ),
        most_over_best=span(callers["most_over_best"], 2),
        interactive=f"{outcomes(most['outcomes'])}, of {most['calls']}",
        capacity=stalls["capacity_calls_per_second"],
        execution=stalls["execution_ms"],
        longest=stalls["longest_execution_ms"],
        stalls="\n".join(stall_lines(stalls["offered"])),
        bulk="\n".join(
            f"| {way} | {span(by['calls_per_second'], 1)} | {span(by['bulk_rows_per_second'], 1)} |"
            for way, by in report["bulk"].items()
        ),
    )


def stall_lines(offered: Report) -> Iterator[str]:
    """The lines of a table by share of the capacity."""
    yield f"| {' | '.join(COLUMNS)} |"
    yield "|---" * len(COLUMNS) + "|"
    for share, by in offered.items():
        yield (
            f"| {float(share):.0%} | this one | {by['calls']} | {outcomes(by['outcomes'])} | "
            f"{cells(by['latency_ms'])} | {by['longest_unanswered_ms']:.0f} | {by['stalls']} |"
        )
        yield f"| | ideal | {by['calls']} | | {cells(by['ideal_ms'])} | | |"


def cells(milliseconds: Report) -> str:
    """The cells from p50 to the ratio."""
    found = quantiles(milliseconds, "p50", "p90", "p95", "p99", "max")
    return f"{found} | {milliseconds['p99'] / milliseconds['p50']:.2f}"
