"""The configuration as shipped: many callers, stalls at light load, a share for bulk work.

One server, with bounds, timeouts, priorities and both instances on. Every answer is checked.

Throughput by callers is measured at the priority of bulk work. 64 callers that never pause ask for
seven seconds of work at once on two cores, and interactive calls may wait ten: some of them are
refused, as they should be. Bulk work may wait two minutes, so all of it is answered, and all
numbers of callers are compared on the same work. How many interactive calls would be refused is
counted separately.

Chats are calls that cost about the same. Real calls differ sevenfold in cost, and so do their
latencies, whether the server stalls or not; and how much a short run gets done would depend on
which of them it happened to ask.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypedDict

import numpy as np

from reward_bench.load import (
    Call,
    Request,
    closed_loop,
    drive,
    no_stall_s,
    open_loop,
    percentiles_ms,
    poisson_arrivals,
    steady_rows_a_second,
    summary,
    unanswered_s,
)
from reward_bench.pools import DESCRIPTIONS, Ids, alike_pool, chat_pools
from reward_bench.rounds import Spread, interleaved, ratio, spread
from reward_bench.serving import (
    BULK,
    INTERACTIVE,
    TAKES,
    Host,
    answered,
    shipped,
    throughput,
)
from reward_bench.suite import SERVED, Report, Setting, Suite, option, say

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
    with shipped(setting) as served:
        pools = answered(served, pools_of(setting.seed))
        callers = by_callers(served, pools["alike"])
        return {
            "pools": DESCRIPTIONS,
            "max_batch_size": served.max_batch_size(),
            "callers": callers,
            "stalls": stalls(served, pools["alike"], callers["rows_per_second"], own.calls),
            "bulk": bulk_shares(served, pools),
        }


def pools_of(seed: int) -> dict[str, list[Ids]]:
    """Chats and bulk work."""
    return {"alike": alike_pool(16, seed), "bulk": chat_pools(16, seed)["bulk"]}


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
    served: Host, pool: Sequence[Request], by_callers: Mapping[str, Spread], n_calls: int
) -> Report:
    """Latency of Poisson arrivals at shares of the capacity, `by_callers`' best throughput."""
    rng = np.random.default_rng(served.setting.seed)
    rows = len(pool[0].ids)
    capacity = max(rates["median"] for rates in by_callers.values()) / rows
    execution_s = rows / by_callers["1"]["median"]
    longest_s = execution_s * served.max_batch_size() / rows
    offered: Report = {}
    for share in SHARES:
        rate = share * capacity
        # somewhat longer than `n_calls` arrivals take on average
        arrivals = poisson_arrivals(rate, 1.2 * n_calls / rate + 2, rng)[:n_calls]
        (calls,) = drive(served.url, (served.load(pool), open_loop(arrivals)))
        found = latencies(calls, longest_s + STALL_S)
        found["ideal_ms"] = percentiles_ms(no_stall_s(arrivals.tolist(), execution_s))
        offered[str(share)] = {"rate": rate, **found}
        say(f"{share:.0%} of capacity: {offered[str(share)]}")
    return {
        "capacity_calls_per_second": capacity,
        "execution_ms": 1e3 * execution_s,
        "longest_execution_ms": 1e3 * longest_s,
        "offered": offered,
    }


def latencies(calls: Sequence[Call], stall_s: float) -> Report:
    """Percentiles and stalls: times longer than `stall_s` in which calls wait, none is answered."""
    silences = unanswered_s(calls)
    return {
        **summary(calls),
        "longest_unanswered_ms": 1e3 * max(silences),
        "stalls": sum(silence > stall_s for silence in silences),
    }


def bulk_shares(served: Host, pools: Mapping[str, Sequence[Request]]) -> Report:
    """What bulk work gets from a server that interactive calls fill, and what that costs them."""
    seconds, rows = served.setting.seconds, len(pools["alike"][0].ids)
    chats = served.load(pools["alike"], priority=INTERACTIVE)
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
