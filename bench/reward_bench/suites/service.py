"""The configuration as shipped: many callers, stalls at light load, a share for bulk work.

One server, with bounds, timeouts, priorities and both instances on; on a CPU with the largest
batch that `gpt2-reward serve` takes there. Every answer is checked.

Throughput by callers is measured at the priority of bulk work. 64 callers that never pause ask for
seven seconds of work at once on two cores, and interactive calls may wait ten: some of them are
refused, as they should be. Bulk work may wait two minutes, so all of it is answered, and all
numbers of callers are compared on the same work. How many interactive calls would be refused is
counted separately.
"""

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypedDict

import numpy as np

from reward_bench.load import (
    Call,
    Request,
    closed_loop,
    drive,
    open_loop,
    percentiles_ms,
    poisson_arrivals,
    steady_rows_a_second,
    summary,
    unanswered_s,
)
from reward_bench.pools import DESCRIPTIONS, chat_pools
from reward_bench.rounds import Spread, interleaved, ratio, spread
from reward_bench.serving import (
    BULK,
    CONFIG,
    INTERACTIVE,
    TAKES,
    Host,
    answered,
    publish,
    served_from,
    throughput,
    with_number,
)
from reward_bench.suite import SERVED, Report, Setting, Suite, option, say
from reward_contract import MODEL_NAME

SHARES = (0.2, 0.5)  # of the capacity
CALLERS = (1, 4, 8, 16, 64)
STALL_S = 0.4  # Triton's batcher oversleeps by half a second at most
CHATS = 16  # callers that never pause, enough to fill the server
BULK_WAYS = {  # priority, and requests in flight
    "bulk, 8 in flight": (BULK, 8),
    "interactive, 1 in flight": (INTERACTIVE, 1),
    "interactive, 4 in flight": (INTERACTIVE, 4),
}


class ByCallers(TypedDict):
    """What `by_callers` measures; "most" is the last of `CALLERS`."""

    rows_per_second: dict[str, Spread]
    most_over_best: Spread
    interactive_most: dict[str, object]  # `summary`


@dataclass(frozen=True)
class Options:
    """How many calls."""

    calls: int = option(500, "calls at each share of the capacity", quick=40, kind=int)


def run(setting: Setting, own: Options) -> Report:
    """Run all three parts of the suite."""
    with tempfile.TemporaryDirectory() as folder:
        repository = publish(setting, Path(folder), ())
        if setting.device == "cpu":
            as_on_cpus(repository / MODEL_NAME / CONFIG.name)
        with served_from(setting, repository) as served:
            pools = answered(served, chat_pools(16, setting.seed))
            callers = by_callers(served, pools["short"])
            best = max(rows["median"] for rows in callers["rows_per_second"].values())
            execution_s = len(pools["short"][0].ids) / callers["rows_per_second"]["1"]["median"]
            capacity = best / len(pools["short"][0].ids)
            return {
                "pools": DESCRIPTIONS,
                "max_batch_size": served.max_batch_size(),
                "callers": callers,
                "execution_ms": 1e3 * execution_s,
                "stalls": stalls(served, pools["short"], capacity, execution_s, own.calls),
                "bulk": bulk_shares(served, pools),
            }


def as_on_cpus(config: Path) -> None:
    """Set the largest batch to the one that the shipped configuration names for CPUs."""
    (rows,) = re.findall(
        r'"cpu_max_batch_size" value: \{ string_value: "(\d+)"', CONFIG.read_text()
    )
    config.write_text(with_number(config.read_text(), "max_batch_size", int(rows)))


def by_callers(served: Host, pool: Sequence[Request]) -> ByCallers:
    """Rows per second by number of callers that never pause; the largest number's over the best."""
    most, seconds = CALLERS[-1], served.setting.seconds
    work, chats = (served.load(pool, priority=priority) for priority in (BULK, INTERACTIVE))
    measures = {str(n): partial(throughput, served.url, work, n, seconds) for n in CALLERS}
    taken = interleaved(measures, served.setting.rounds)
    medians = {n: float(np.median(rates)) for n, rates in taken.items()}
    best = max(medians, key=medians.__getitem__)
    say(f"rows per second by callers: {medians}")
    (calls,) = drive(served.url, (chats, closed_loop(most, seconds)))
    return {
        "rows_per_second": {n: spread(rates) for n, rates in taken.items()},
        "most_over_best": ratio(taken[str(most)], taken[best]),
        "interactive_most": summary(calls),
    }


def stalls(
    served: Host, pool: Sequence[Request], capacity: float, execution_s: float, n_calls: int
) -> Report:
    """Latency of Poisson arrivals at shares of the capacity."""
    rng = np.random.default_rng(served.setting.seed)
    offered: Report = {}
    for share in SHARES:
        rate = share * capacity
        # somewhat longer than `n_calls` arrivals take on average
        arrivals = poisson_arrivals(rate, 1.2 * n_calls / rate + 2, rng)[:n_calls]
        (calls,) = drive(served.url, (served.load(pool), open_loop(arrivals)))
        offered[str(share)] = {"rate": rate, **latencies(calls, execution_s)}
        say(f"{share:.0%} of capacity: {offered[str(share)]}")
    return {"capacity_calls_per_second": capacity, "offered": offered}


def latencies(calls: Sequence[Call], execution_s: float) -> Report:
    """Percentiles, p99 over the median, and stalls.

    A call may rightly wait for executions of others. A stall is a time in which calls wait and none
    is answered, longer than an execution plus `STALL_S`.
    """
    found, silences = summary(calls), unanswered_s(calls)
    quantiles = percentiles_ms([call.latency_s for call in calls if call.outcome == "ok"])
    return {
        **found,
        "p99 over p50": quantiles["p99"] / quantiles["p50"],
        "longest_unanswered_ms": 1e3 * max(silences),
        "stalls": sum(silence > execution_s + STALL_S for silence in silences),
    }


def bulk_shares(served: Host, pools: Mapping[str, Sequence[Request]]) -> Report:
    """What bulk work gets from a server that interactive calls fill, and what that costs them."""
    seconds, rows = served.setting.seconds, len(pools["short"][0].ids)
    chats = served.load(pools["short"], priority=INTERACTIVE)
    rates: dict[str, dict[str, list[float]]] = {}
    for _ in range(served.setting.rounds):
        (alone,) = drive(served.url, (chats, closed_loop(CHATS, seconds)))
        note(rates, "no bulk work", steady_rows_a_second(alone, CHATS, seconds) / rows, 0.0)
        for name, (priority, in_flight) in BULK_WAYS.items():
            work = served.load(pools["bulk"], priority=priority)
            calls, bulk = drive(
                served.url,
                (chats, closed_loop(CHATS, seconds)),
                (work, closed_loop(in_flight, seconds)),
            )
            # what is answered once the interactive calls have ended does not count
            done = sum(c.n_rows for c in bulk if c.outcome == "ok" and c.done_s < seconds)
            note(rates, name, steady_rows_a_second(calls, CHATS, seconds) / rows, done / seconds)
    say(f"bulk work beside {CHATS} callers: {rates}")
    return {
        name: {kind: spread(values) for kind, values in kinds.items()}
        for name, kinds in rates.items()
    }


def note(rates: dict[str, dict[str, list[float]]], name: str, chats: float, bulk: float) -> None:
    """Add a round's figures."""
    kinds = rates.setdefault(name, {"calls_per_second": [], "bulk_rows_per_second": []})
    kinds["calls_per_second"].append(chats)
    kinds["bulk_rows_per_second"].append(bulk)


SUITE = Suite(
    name="service",
    about="served as shipped: many callers, stalls at light load, a share for bulk work",
    file="service-{shape}.json",
    measures=SERVED,
    takes=TAKES - {"threads"} | {"checkpoint"},
    options=Options,
    run=run,
    seconds=8.0,
)
