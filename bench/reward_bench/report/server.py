"""The section of the suite `server`."""

from reward_bench.price import MINE, THEIRS
from reward_bench.report.cells import Report, machine, quantiles, span
from reward_bench.serving import PLAIN
from reward_contract import MODEL_NAME

NAMES = {MODEL_NAME: "ours", PLAIN: "the plain export on the same server"}

SERVER = """\
## The server: GPT-2 {shape} on {cpu}

`python -m reward_bench server --shape {shape}`, on a real Triton over gRPC, {precision}, {machine}.
The load generator shares the machine; brackets give the smallest and largest of {rounds}
interleaved rounds. Every answer is compared with what the graph gives in process.

{price}Rows per second by calls in flight. *Short*: {short}. *Long*: {long}.

| chats | in flight | ours | plain export, same server | times plain |
|---|---|---|---|---|
{concurrency}

![Rows per second by calls in flight](plots/concurrency.svg)

So plan with {short_a_thread:.0f} rows per second for each thread of this processor for short chats,
and {long_a_thread:.0f} for long ones, at this shape and precision, with the generator on the same
machine.

Milliseconds from the moment at which a call was meant to be sent (Poisson arrivals), by the load
offered, as a share of the capacity for calls of the same kind.

| chats | offered | calls per second | calls | p50 | p90 | p95 | p99 |
|---|---|---|---|---|---|---|---|
{latency}

![Latency by offered load](plots/latency.svg)

Interactive best-of-8 calls, {interactive_rate:.1f} per second, while {bulk_in_flight} bulk calls of
16 rows are in flight: *bulk behind* at the lower priority meant for bulk work, *bulk equal* at the
priority of the interactive calls.

| bulk work | interactive p50, ms | p95 | p99 | bulk rows per second |
|---|---|---|---|---|
{mixed}

Priorities decide which call is next, and do not interrupt an execution: an interactive call waits
for the one that is running, which may be a whole bulk batch. A smaller `max_batch_size` in
`config.pbtxt` shortens that wait; on a CPU, larger batches of unlike rows are no cheaper per row.

Speed relative to the plain export, 8 full rows, by the share of their tokens that is a common
prefix: {sharing}.

![Speed-up by shared prefix](plots/sharing.svg)

Milliseconds per row, full rows that share nothing, by rows per request: {batch}.

![Cost by batch size](plots/batch.svg)

Efficiency, at {rows_an_execution:.1f} rows per execution on the server and 32 in process:
{over:.1f} rows/s over gRPC, {inside:.1f} in process, a ratio of {efficiency}. Processor seconds per
thousand rows: {cpu_seconds}.

Milliseconds of calls of short chats far below the capacity, which is {light_rate:.1f} calls per
second, with the queue's bounds, timeouts and priorities (*policies*) or without, on one or two
instances:

| offered | queue, instances | p50 | p90 | p95 | p99 |
|---|---|---|---|---|---|
{light}

With policies and one instance, Triton tells its batcher of a call only if the instance is idle. A
call that comes during an execution is found with the next call, or when the batcher looks by
itself, twice a second.
"""

PRICE = """\
**{figure}**

Milliseconds of the machine's time per call, with one or four calls in flight, whichever is cheaper.
vLLM runs in process, without a server, with threads on all processors and a cold prefix cache; it
gets calls one by one or eight in one batch, whichever is cheaper.

| engine | {best_of} |
|---|{rule}
{engines}

"""


def section(report: Report) -> str:
    """The section as Markdown."""
    efficiency, mixed, light = (report[name] for name in ("efficiency", "mixed", "light"))
    return SERVER.format(
        machine=machine(report),
        price=price(report["price"]) if "price" in report else "",
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
    """Rows per second of the best closed loop, over the number of threads."""
    best = max(by["ours"]["median"] for by in report["concurrency"][regime].values())
    return float(best / report["threads"])


def price(found: Report) -> str:
    """The cost of a call, by engine and candidates, below the headline figure."""
    by_engine = found["ms_per_call"]
    best_of = [f"best of {n}" for n in by_engine[MODEL_NAME]]
    over = found[f"best-of-{MINE} over best-of-{THEIRS}"]
    against = ", ".join(
        f"{by['median']:.2f} ({by['min']:.2f} to {by['max']:.2f}) with {NAMES.get(engine, engine)}"
        for engine, by in over.items()
    )
    return PRICE.format(
        figure=f"The price of best-of-{MINE} here, over that of best-of-{THEIRS}: {against}.",
        best_of=" | ".join(best_of),
        rule="---|" * len(best_of),
        engines="\n".join(
            f"| {NAMES.get(engine, engine)} | {' | '.join(span(by) for by in ms.values())} |"
            for engine, ms in by_engine.items()
        ),
    )
