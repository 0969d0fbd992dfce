"""Sections of docs/benchmarks.md about the server, written from its result files."""

from collections.abc import Mapping, Sequence
from typing import Any

Report = Mapping[str, Any]

SERVER = """\
## The server: GPT-2 {shape} on {cpu}

`python bench/run.py server --shape {shape}`, on a real Triton over gRPC, {precision}, {machine}.
The load generator shares the machine; {rounds} interleaved rounds; in brackets the
smallest and largest of them. Every answer is compared with what the graph gives in process.

Rows a second by calls in flight. *Short*: {short}. *Long*: {long}.

| chats | in flight | ours | plain export, same server | times plain |
|---|---|---|---|---|
{concurrency}

![Rows a second by calls in flight](plots/concurrency.svg)

So plan with {short_a_thread:.0f} rows a second for each thread of this processor for short chats,
and {long_a_thread:.0f} for long ones, at this shape and precision, the generator beside it.

Milliseconds from the moment at which a call was meant to be sent (Poisson arrivals), by the share
of the capacity that was offered. Few calls make a rough 99 %.

| chats | offered | calls a second | calls | p50 | p90 | p95 | p99 |
|---|---|---|---|---|---|---|---|
{latency}

![Latency by offered load](plots/latency.svg)

Interactive best-of-8 calls, {interactive_rate:.1f} a second, beside {bulk_in_flight} bulk calls of
16 rows in flight: *behind*, at the lower priority that bulk work has; *equal*, at the same.

| bulk work | interactive p50, ms | p95 | p99 | bulk rows a second |
|---|---|---|---|---|
{mixed}

Priorities decide who is next, and do not interrupt an execution: an interactive call waits for the
one that runs, which is as long as bulk batches are. On a processor, where larger batches of unlike
rows are no cheaper a row, a smaller `max_batch_size` in `config.pbtxt` shortens that wait.

Times the plain export, 8 full rows, by the share of tokens at their beginning that they share:
{sharing}.

![Speed-up by shared prefix](plots/sharing.svg)

Milliseconds a row, full rows that share nothing, by rows in a request: {batch}.

![Cost by batch size](plots/batch.svg)

Efficiency, at {rows_an_execution:.1f} rows an execution on the server and 32 in process: {over:.1f}
rows/s over gRPC, {inside:.1f} in process, a ratio of {efficiency}. Processor seconds for a
thousand rows: {cpu_seconds}.

Milliseconds of short chats far below the capacity, {light_rate:.1f} calls a second, with the
queue's bounds, timeouts and priorities (*policies*) and without, on one instance or two:

| offered | queue, instances | p50 | p90 | p95 | p99 |
|---|---|---|---|---|---|
{light}

With policies and one instance, Triton tells its batcher of a call only where the instance is idle.
One that comes during an execution is found with the next call, or when the batcher looks by itself,
twice a second.
"""

OVERLOAD = """\
## Overload: GPT-2 {shape} on {cpu}

`python bench/run.py overload --shape {shape}`, {precision}, {machine}. Calls of {rows} full rows;
capacity, measured on the spot: {capacity_calls_a_second:.1f} calls/s. `max_batch_size` was
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

ANALYZER = """\
## Triton's own load generator

`python bench/run.py analyzer --shape {shape}`: perf_analyzer 2.51.0 and ours in turn on the same
server, {in_flight} calls of best-of-8 in flight, {machine}.

| chats | rows/s, perf_analyzer | rows/s, ours | ours / theirs | p50 ms, perf_analyzer | ours |
|---|---|---|---|---|---|
{lines}
"""


def server_section(report: Report) -> str:
    """The suite `server`."""
    efficiency, mixed, light = (report[name] for name in ("efficiency", "mixed", "light"))
    return SERVER.format(
        machine=machine(report),
        **{name: report[name] for name in ("shape", "cpu", "precision", "rounds")},
        short=report["pools"]["short"],
        long=report["pools"]["long"],
        concurrency="\n".join(
            f"| {regime} | {n} | {span(by['ours'])} | {span(by.get('plain'))} | "
            f"{span(by.get('ratio'), 2)} |"
            for regime, counts in report["concurrency"].items()
            for n, by in counts.items()
        ),
        latency="\n".join(
            f"| {regime} | {float(share):.0%} | {by['rate']:.1f} | {by['calls']} | "
            f"{quantiles(by['latency_ms'], 'p50', 'p90', 'p95', 'p99')} |"
            for regime, found in report["latency"].items()
            for share, by in found["offered"].items()
        ),
        short_a_thread=rows_a_thread(report, "short"),
        long_a_thread=rows_a_thread(report, "long"),
        interactive_rate=mixed["interactive_calls_a_second"],
        bulk_in_flight=mixed["bulk_in_flight"],
        mixed="\n".join(
            f"| {name} | {quantiles(by, 'p50', 'p95', 'p99')} | "
            f"{span(mixed['bulk_rows_a_second'][name]) if name != 'alone' else ''} |"
            for name, by in mixed["latency_ms"].items()
        ),
        sharing=", ".join(
            f"{float(share):.0%} {span(by, 2)}" for share, by in report["sharing"].items()
        ),
        batch=", ".join(f"{n}: {by['median']:.1f}" for n, by in report["batch"].items()),
        rows_an_execution=efficiency["rows_an_execution"],
        over=efficiency["over_grpc"]["median"],
        inside=efficiency["in_process"]["median"],
        efficiency=span(efficiency["ratio"], 2),
        light_rate=light["capacity_calls_a_second"],
        light="\n".join(
            f"| {float(share):.0%} | {name} | {quantiles(by, 'p50', 'p90', 'p95', 'p99')} |"
            for share, ways in light.items()
            if share != "capacity_calls_a_second"
            for name, by in ways.items()
        ),
        cpu_seconds=", ".join(
            f"{name} {value:.1f}"
            for name, value in efficiency["cpu_seconds_a_thousand_rows"].items()
        ),
    )


def rows_a_thread(report: Report, regime: str) -> float:
    """The best of the closed loops, over the threads."""
    best = max(by["ours"]["median"] for by in report["concurrency"][regime].values())
    return float(best / report["threads"])


def overload_section(report: Report) -> str:
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


def analyzer_section(report: Report) -> str:
    """The suite `analyzer`."""
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


def machine(report: Report) -> str:
    """Threads, and what else the machine did before."""
    return (
        f"{report['threads']} threads, {report['device']}, seed {report['seed']}, load average "
        f"{report['load_average_before']:.1f} before"
    )


def span(by: Mapping[str, float] | None, digits: int = 0) -> str:
    """Median, and the range of the rounds in brackets; a dash for nothing."""
    if by is None:
        return "-"
    return f"{by['median']:.{digits}f} ({by['min']:.{digits}f} to {by['max']:.{digits}f})"


def quantiles(by: Mapping[str, float], *names: str) -> str:
    """Cells of a table; a dash where there was nothing to measure."""
    return " | ".join(f"{by[name]:.0f}" if name in by else "-" for name in names)


def outcomes(by: Mapping[str, int]) -> str:
    """How many ended in which way."""
    return ", ".join(f"{n} {name}" for name, n in sorted(by.items(), key=_count, reverse=True))


def _count(item: Sequence) -> int:
    return int(item[1])
