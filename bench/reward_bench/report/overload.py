"""The section of the suite `overload`."""

from reward_bench.report.cells import Report, machine, outcomes, quantiles

OVERLOAD = """\
## Overload: GPT-2 {shape} on {cpu}

`python -m reward_bench overload --shape {shape}`, {precision}, {machine}. Calls of {rows} full
rows; capacity, measured on the spot: {capacity_calls_a_second:.1f} calls/s. `max_batch_size` was
{max_batch_size}, because an execution is not interrupted. The queue of a priority was bounded at
{max_queue_size} calls, {queued_s:.0f} s of work, and none waits there for more than
{max_wait_s:.0f} s. The checked-in configuration has {max_queue_size_shipped}, {shipped_s:.0f} s of
such work here: where that is more than a call may wait, calls that are too many are refused late,
when they have waited for so long, and not at once.

| phase | offered, calls/s | answered | outcomes | p50, ms | largest | p99 of overloaded, ms |
|---|---|---|---|---|---|---|
{phases}

![Calls offered and answered](plots/overload.svg)

With the queue full, {throughput_kept:.0%} of the capacity was answered. After the load fell, the
last call to be refused was sent {recovered_after_s:.1f} s later. Server and model held
{memory_first:.0f} MB at first, {memory_max:.0f} MB at most and {memory_last:.0f} MB at last.

Interactive best-of-8 calls meanwhile, {interactive_rate:.1f} a second:

| beside | p50, ms | p95 | p99 | outcomes |
|---|---|---|---|---|
{interactive}
"""


def section(report: Report) -> str:
    """The suite `overload`."""
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
