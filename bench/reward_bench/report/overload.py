"""The section of the suite `overload`."""

from reward_bench.report.cells import Report, machine, outcomes, quantiles

OVERLOAD = """\
## Overload: GPT-2 {shape} on {cpu}

`python -m reward_bench overload --shape {shape}`, {precision}, {machine}. Each call has {rows} full
rows; the capacity, measured just before, is {capacity_calls_a_second:.1f} calls/s. `max_batch_size`
was {max_batch_size}, because an execution is not interrupted. The queue of each priority was
bounded at {max_queue_size} calls, {queued_s:.0f} s of work, and no call waits there for more than
{max_wait_s:.0f} s. The checked-in bound is {max_queue_size_shipped} calls, here {shipped_s:.0f} s
of such work: if that is more than a call may wait, surplus calls are not refused at once, but only
after they have waited that long.

| phase | offered, calls/s | answered | outcomes | p50, ms | largest | p99 of overloaded, ms |
|---|---|---|---|---|---|---|
{phases}

![Calls offered and answered](plots/overload.svg)

With the queue full, the server answered {throughput_kept:.0%} of its capacity. The last call to be
refused was sent {recovered_after_s:.1f} s after the load fell. Server and model held
{memory_first:.0f} MB at the start, {memory_max:.0f} MB at most and {memory_last:.0f} MB at the end.

Interactive best-of-8 calls, {interactive_rate:.1f} per second, alone and alongside bulk work:

| interactive calls | p50, ms | p95 | p99 | outcomes |
|---|---|---|---|---|
{interactive}
"""


def section(report: Report) -> str:
    """The section as Markdown."""
    names = ("shape", "cpu", "precision", "rows", "capacity_calls_a_second", "throughput_kept")
    bounds = ("max_batch_size", "max_queue_size", "max_wait_s", "queued_s")
    sizes, found = report["memory_mb"], report["interactive"]
    return OVERLOAD.format(
        machine=machine(report),
        **{name: report[name] for name in (*names, *bounds)},
        max_queue_size_shipped=report["max_queue_size_shipped"],
        shipped_s=report["max_queue_size_shipped"] / report["capacity_calls_a_second"],
        recovered_after_s=report["recovered_after_s"],
        phases="\n".join(
            f"| {name} | {by['offered_calls_a_second']:.1f} | "
            f"{by['answered_calls_a_second']:.1f} | {outcomes(by['outcomes'])} | "
            f"{quantiles(by['latency_ms'], 'p50', 'max')} | {quantiles(by['refusal_ms'], 'p99')} |"
            for name, by in report["phases"].items()
        ),
        memory_first=sizes[0],
        memory_max=max(sizes),
        memory_last=sizes[-1],
        interactive_rate=found["calls_a_second"],
        interactive="\n".join(
            f"| {name} | {quantiles(by['latency_ms'], 'p50', 'p95', 'p99')} | "
            f"{outcomes(by['outcomes'])} |"
            for name, by in found.items()
            if name not in {"calls_a_second", "bulk"}
        ),
    )
