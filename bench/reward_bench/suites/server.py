"""The served model on a real Triton: prices, tails, sharing, batches, mixed priorities.

The load generator shares the machine with the server, and its processor time is reported next to
the server's. Measurements that are compared with each other are taken in turn, round by round.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from reward_bench.engines import Engine
from reward_bench.load import (
    Request,
    closed_loop,
    drive,
    open_loop,
    percentiles_ms,
    poisson_arrivals,
    steady_rows_a_second,
)
from reward_bench.machine import wait_until_idle
from reward_bench.pools import (
    BATCH_SIZES,
    DESCRIPTIONS,
    SHARES,
    best_of_pool,
    chat_pools,
    rows_pool,
    sharing_pool,
)
from reward_bench.price import BEST_OF, prices, tails
from reward_bench.processes import cpu_seconds
from reward_bench.rounds import Spread, interleaved, ratio, spread
from reward_bench.serving import (
    BULK,
    FULL,
    FULL_ROWS,
    INTERACTIVE,
    PLAIN,
    TAKES,
    TWO,
    UNBOUNDED,
    Host,
    answered,
    host,
    in_process,
    rows_a_second,
)
from reward_bench.suite import SERVED, Report, Setting, Suite, option, say
from reward_contract import MODEL_NAME

IN_FLIGHT = {"short": (1, 2, 4, 8, 16), "long": (1, 4)}
PLAIN_IN_FLIGHT = (1, 4)  # it gains nothing from more
MIN_ARRIVALS = 30
BULK_IN_FLIGHT = 8
INTERACTIVE_SHARE = 0.2
LIGHT, LIGHT_ARRIVALS = (0.2, 0.5), 50

Pools = Mapping[str, Sequence[Request]]
ByCount = dict[str, dict[str, Spread]]  # by calls in flight: ours, plain, and their ratio


@dataclass(frozen=True)
class Options:
    """How many calls."""

    calls: int = option(500, "calls for each number of candidates and load", quick=20, kind=int)


def run(setting: Setting, own: Options) -> Report:
    """Run all parts of the suite against one server."""
    with host(setting, (PLAIN, FULL, UNBOUNDED, TWO)) as served:
        pools = make_pools(served, n_requests=16)
        say("requests and their rewards are ready")
        found: Report = {"pools": DESCRIPTIONS}
        found["price"] = prices(served, pools)
        found["latency"] = tails(served, pools, own.calls)
        found["concurrency"] = concurrency(served, pools)
        found["mixed"] = mixed(served, pools)
        found["sharing"] = sharing(served, pools)
        found["batch"] = batch(served, pools)
        found["light"] = light(served, pools["short"])
        found["efficiency"] = efficiency(served, pools["short"])
    return found


def make_pools(served: Host, n_requests: int) -> dict[str, list[Request]]:
    """All requests of the suite, with their expected rewards."""
    seed = served.setting.seed
    ids = chat_pools(n_requests, seed)
    ids |= {str(n): best_of_pool(n, 8, seed) for n in BEST_OF}
    ids |= {f"share {share}": sharing_pool(share, 4, seed) for share in SHARES}
    ids |= {f"rows {n}": rows_pool(n, 2, seed) for n in BATCH_SIZES}
    return answered(served, ids)


def concurrency(served: Host, pools: Pools) -> dict[str, ByCount]:
    """Rows per second by calls in flight, ours and the plain export on the same server."""
    found: dict[str, ByCount] = {}
    for regime, counts in IN_FLIGHT.items():
        found[regime] = {}
        for in_flight in counts:
            models = (MODEL_NAME, PLAIN) if in_flight in PLAIN_IN_FLIGHT else (MODEL_NAME,)
            measures = {
                model: partial(rows_a_second, served, pools[regime], in_flight, model)
                for model in models
            }
            taken = interleaved(measures, served.setting.rounds)
            by = {"ours": spread(taken[MODEL_NAME])}
            if PLAIN in taken:
                by["plain"] = spread(taken[PLAIN])
                by["ratio"] = ratio(taken[MODEL_NAME], taken[PLAIN])
            found[regime][str(in_flight)] = by
            say(f"{regime}, {in_flight} in flight: rows/s {taken}")
    return found


def mixed(served: Host, pools: Pools) -> Report:
    """Interactive calls alone, and alongside bulk work of lower priority or of their own.

    Also alongside bulk work of lower priority at a `max_batch_size` of `FULL_ROWS`: an execution
    is not interrupted, so its length decides how long a call waits.
    """
    rng, rounds = np.random.default_rng(served.setting.seed), served.setting.rounds
    capacity = rows_a_second(served, pools["short"], 4) / len(pools["short"][0].ids)
    rate = INTERACTIVE_SHARE * capacity
    seconds = max(2 * served.setting.seconds, MIN_ARRIVALS / rate)
    ways = {
        "bulk behind": (BULK, MODEL_NAME),
        "bulk equal": (INTERACTIVE, MODEL_NAME),
        f"bulk behind, {FULL_ROWS} rows an execution at most": (BULK, FULL),
    }
    latencies: dict[str, list[float]] = {name: [] for name in ("alone", *ways)}
    bulk_rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        loop = open_loop(poisson_arrivals(rate, seconds, rng))
        (calls,) = drive(served.url, (served.load(pools["short"], priority=INTERACTIVE), loop))
        latencies["alone"] += [call.latency_s for call in calls]
        for name, (priority, model) in ways.items():
            chats = served.load(pools["short"], model, INTERACTIVE)
            work = served.load(pools["bulk"], model, priority)
            calls, bulk = drive(
                served.url, (chats, loop), (work, closed_loop(BULK_IN_FLIGHT, seconds))
            )
            latencies[name] += [call.latency_s for call in calls]
            bulk_rates[name].append(steady_rows_a_second(bulk, BULK_IN_FLIGHT, seconds))
        say(f"mixed, a round: {[round(1e3 * np.median(v)) for v in latencies.values()]} ms")
    return {
        "interactive_calls_a_second": rate,
        "bulk_in_flight": BULK_IN_FLIGHT,
        "latency_ms": {name: percentiles_ms(values) for name, values in latencies.items()},
        "bulk_rows_a_second": {name: spread(values) for name, values in bulk_rates.items()},
    }


def sharing(served: Host, pools: Pools) -> dict[str, Spread]:
    """Speed relative to the plain export, by the share of a group's tokens that are shared."""
    found: dict[str, Spread] = {}
    for share in SHARES:
        measures = {
            model: partial(rows_a_second, served, pools[f"share {share}"], 1, model)
            for model in (MODEL_NAME, PLAIN)
        }
        taken = interleaved(measures, served.setting.rounds)
        found[str(share)] = ratio(taken[MODEL_NAME], taken[PLAIN])
        say(f"{share:.0%} shared: {found[str(share)]['median']:.2f} times plain")
    return found


def batch(served: Host, pools: Pools) -> dict[str, Spread]:
    """Milliseconds per row by full rows per request, nothing shared, one request at a time."""
    measures = {str(n): partial(rows_a_second, served, pools[f"rows {n}"], 1) for n in BATCH_SIZES}
    taken = interleaved(measures, served.setting.rounds)
    return {n: spread([1e3 / rate for rate in rates]) for n, rates in taken.items()}


def light(served: Host, pool: Sequence[Request]) -> Report:
    """Latency of Poisson arrivals far below the capacity, by the queue's policies and instances.

    With a bound, a timeout or priorities, and one instance, Triton tells its batcher of a request
    only if the instance is idle (`Enqueue` in dynamic_batch_scheduler.cc, `PayloadSlotAvailable`
    in rate_limiter.cc). A request that comes during an execution is found with the next one, or
    when the batcher looks by itself, twice a second.
    """
    models = {"policies, one instance": FULL, "policies, two": TWO, "none, one": UNBOUNDED}
    capacity = rows_a_second(served, pool, 4) / len(pool[0].ids)
    rng = np.random.default_rng(served.setting.seed)
    found: Report = {"capacity_calls_a_second": capacity}
    for share in LIGHT:
        latencies: dict[str, list[float]] = {name: [] for name in models}
        for _ in range(served.setting.rounds):
            arrivals = poisson_arrivals(share * capacity, LIGHT_ARRIVALS / (share * capacity), rng)
            for name, model in models.items():
                (calls,) = drive(served.url, (served.load(pool, model), open_loop(arrivals)))
                latencies[name] += [call.latency_s for call in calls]
        found[str(share)] = {name: percentiles_ms(seen) for name, seen in latencies.items()}
        say(f"{share:.0%} of capacity: {found[str(share)]}")
    return found


def efficiency(served: Host, pool: Sequence[Request]) -> Report:
    """Rows per second over gRPC at saturation against the same graph in process.

    Both run batches of `FULL_ROWS` rows: on the server by its configuration, with four times as
    many requests in flight as one execution takes; in process, requests are joined beforehand.
    """
    per_batch = FULL_ROWS // len(pool[0].ids)
    joined = {
        str(i): np.concatenate([request.ids for request in pool[i : i + per_batch]])
        for i in range(0, len(pool), per_batch)
    }
    with in_process(served.setting, served.repository, joined) as engine:
        one = max(engine.ask(name).seconds for name in [*joined, *joined])
        in_flight = 4 * per_batch
        seconds = max(2 * served.setting.seconds, 8 * one)
        over, inside, spent = [], [], []
        executed = served.metric("nv_inference_exec_count", FULL)
        inferred = served.metric("nv_inference_count", FULL)
        for _ in range(served.setting.rounds):
            rate, used = saturated(served, pool, in_flight, seconds)
            over.append(rate)
            spent.append(used)
            wait_until_idle()  # threads of one engine keep spinning and slow the other
            inside.append(repeated(engine, list(joined), seconds))
            say(f"over gRPC {over[-1]:.0f} rows/s, in process {inside[-1]:.0f}")
        executed = served.metric("nv_inference_exec_count", FULL) - executed
        inferred = served.metric("nv_inference_count", FULL) - inferred
    return {
        "rows_an_execution": inferred / executed,
        "over_grpc": spread(over),
        "in_process": spread(inside),
        "ratio": ratio(over, inside),
        "cpu_seconds_a_thousand_rows": {
            name: float(np.median([used[name] for used in spent])) for name in spent[0]
        },
    }


def saturated(
    served: Host, pool: Sequence[Request], in_flight: int, seconds: float
) -> tuple[float, dict[str, float]]:
    """Rows per second, and the processor seconds of each process per thousand rows."""
    processes, own = served.processes(), time.process_time()
    before = {name: cpu_seconds(pids) for name, pids in processes.items()}
    load = served.load(pool, FULL)
    (calls,) = drive(served.url, (load, closed_loop(in_flight, seconds)))
    thousands = sum(call.n_rows for call in calls) / 1e3
    used = {n: (cpu_seconds(pids) - before[n]) / thousands for n, pids in processes.items()}
    used["generator"] = (time.process_time() - own) / thousands
    return steady_rows_a_second(calls, in_flight, seconds), used


def repeated(engine: Engine, names: Sequence[str], seconds: float) -> float:
    """Rows per second of the named batches in process, one after the other."""
    taken = rows = 0.0
    while taken < seconds:
        for name in names:
            answer = engine.ask(name)
            taken, rows = taken + answer.seconds, rows + len(answer.rewards)
    return rows / taken


SUITE = Suite(
    name="server",
    about="served: the price of a call, its tail, throughput, sharing, efficiency",
    file="server-{shape}.json",
    measures=SERVED,
    takes=TAKES | {"vllm"},
    options=Options,
    run=run,
)
