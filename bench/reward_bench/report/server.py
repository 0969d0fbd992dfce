"""The section of the suite `server`."""

from reward_bench.price import MINE, THEIRS
from reward_bench.report.cells import Report, machine, quantiles, span
from reward_bench.serving import PLAIN
from reward_contract import MODEL_NAME

NAMES = {MODEL_NAME: "ours", PLAIN: "the plain export on the same server"}

SERVER = """\
## The server: GPT-2 {shape} on {cpu}

`python -m reward_bench server --shape {shape}`, on a real Triton over gRPC, {precision}, {machine}.
The load generator shares the machine; {rounds} interleaved rounds; in brackets the
smallest and largest of them. Every answer is compared with what the graph gives in process.

{price}Rows per second by calls in flight. *Short*: {short}. *Long*: {long}.

| chats | in flight | ours | plain export, same server | times plain |
|---|---|---|---|---|
{concurrency}

![Rows a second by calls in flight](plots/concurrency.svg)

So plan with {short_a_thread:.0f} rows a second for each thread of this processor for short chats,
and {long_a_thread:.0f} for long ones, at this shape and precision, the generator beside it.

Milliseconds from the moment at which a call was meant to be sent (Poisson arrivals), by the share
of the capacity that was offered: of the capacity for such calls, not of one in common.

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

PRICE = """\
**{figure}**

Milliseconds of the machine per call, with one call in flight or four, whichever is cheaper. vLLM
runs in process, without a server, its threads on all processors, its prefix cache cold; it gets
calls one by one or eight in one batch, whichever is cheaper.

| engine | {best_of} |
|---|{rule}
{engines}

"""


def section(report: Report) -> str:
    """The suite `server`."""
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
    """The best of the closed loops, over the threads."""
    best = max(by["ours"]["median"] for by in report["concurrency"][regime].values())
    return float(best / report["threads"])


def price(found: Report) -> str:
    """What one call costs, by engine and candidates, and the comparison on top."""
    by_engine = found["ms_per_call"]
    best_of = [f"best of {n}" for n in by_engine[MODEL_NAME]]
    over = found[f"best-of-{MINE} over best-of-{THEIRS}"]
    against = ", ".join(
        f"{by['median']:.2f} ({by['min']:.2f} to {by['max']:.2f}) of {NAMES.get(engine, engine)}"
        for engine, by in over.items()
    )
    return PRICE.format(
        figure=f"Best-of-{MINE} here, over the price of best-of-{THEIRS} elsewhere: {against}.",
        best_of=" | ".join(best_of),
        rule="---|" * len(best_of),
        engines="\n".join(
            f"| {NAMES.get(engine, engine)} | {' | '.join(span(by) for by in ms.values())} |"
            for engine, ms in by_engine.items()
        ),
    )
