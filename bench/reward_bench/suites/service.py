"""The configuration as it is shipped: stalls at light load, many callers, a share for bulk work.

One server, with bounds, timeouts, priorities and both instances on; on a CPU with the largest
batch that `gpt2-reward serve` takes there. Every answer is checked.
"""

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

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
)
from reward_bench.pools import DESCRIPTIONS, chat_pools
from reward_bench.rounds import interleaved, ratio, spread
from reward_bench.serving import (
    BULK,
    CONFIG,
    INTERACTIVE,
    TAKES,
    Host,
    answered,
    publish,
    rows_a_second,
    served_from,
    with_number,
)
from reward_bench.suite import SERVED, Report, Setting, Suite, option, say
from reward_contract import MODEL_NAME

SHARES = (0.2, 0.5)  # of the capacity
CALLERS = (1, 4, 8, 16, 64)
STALL_S = 0.4  # what Triton's batcher oversleeps at most is half a second
CHATS = 16  # callers without a pause, who fill the server
BULK_WAYS = {  # priority, and requests in flight
    "bulk, 8 in flight": (BULK, 8),
    "interactive, 1 in flight": (INTERACTIVE, 1),
    "interactive, 4 in flight": (INTERACTIVE, 4),
}


@dataclass(frozen=True)
class Options:
    """Of this suite alone."""

    calls: int = option(500, "calls of each share of the capacity", quick=40, kind=int)


def run(setting: Setting, own: Options) -> Report:
    """All three parts."""
    with tempfile.TemporaryDirectory() as folder:
        repository = publish(setting, Path(folder), ())
        if setting.device == "cpu":
            as_on_cpus(repository / MODEL_NAME / CONFIG.name)
        with served_from(setting, repository) as served:
            pools = answered(served, chat_pools(16, setting.seed))
            callers = by_callers(served, pools["short"])
            capacity = float(np.max(list(callers["medians"].values()))) / len(pools["short"][0].ids)
            return {
                "pools": DESCRIPTIONS,
                "max_batch_size": served.max_batch_size(),
                "callers": callers,
                "stalls": stalls(served, pools["short"], capacity, own.calls),
                "bulk": bulk_shares(served, pools),
            }


def as_on_cpus(config: Path) -> None:
    """Set the largest batch to the one that the shipped configuration names for CPUs."""
    (rows,) = re.findall(
        r'"cpu_max_batch_size" value: \{ string_value: "(\d+)"', CONFIG.read_text()
    )
    config.write_text(with_number(config.read_text(), "max_batch_size", int(rows)))


def by_callers(served: Host, pool: Sequence[Request]) -> dict[str, dict[str, float]]:
    """Rows per second by callers that never pause, and what 64 get of the best."""
    measures = {str(n): partial(rows_a_second, served, pool, n) for n in CALLERS}
    taken = interleaved(measures, served.setting.rounds)
    medians = {n: float(np.median(rates)) for n, rates in taken.items()}
    best = max(medians, key=medians.__getitem__)
    say(f"rows per second by callers: {medians}")
    return {"medians": medians, "64 over the best": ratio(taken[str(CALLERS[-1])], taken[best])}


def stalls(served: Host, pool: Sequence[Request], capacity: float, n_calls: int) -> Report:
    """Latency of Poisson arrivals at shares of the capacity."""
    rng = np.random.default_rng(served.setting.seed)
    found: Report = {"capacity_calls_per_second": capacity}
    for share in SHARES:
        rate = share * capacity
        # somewhat longer than so many calls take on average
        arrivals = poisson_arrivals(rate, 1.2 * n_calls / rate + 2, rng)[:n_calls]
        (calls,) = drive(served.url, (served.load(pool), open_loop(arrivals)))
        found[str(share)] = latencies(calls)
        say(f"{share:.0%} of capacity: {found[str(share)]}")
    return found


def latencies(calls: Sequence[Call]) -> dict[str, float]:
    """Percentiles, p99 over the median, and calls beyond the median by what a stall takes.

    A call may wait for others' executions besides: at half of the capacity some do.
    """
    seconds = [call.latency_s for call in calls if call.outcome == "ok"]
    found = percentiles_ms(seconds)
    late = sum(second > float(np.median(seconds)) + STALL_S for second in seconds)
    return {
        "calls": len(seconds),
        **found,
        "p99 over p50": found["p99"] / found["p50"],
        "late": late,
    }


def bulk_shares(served: Host, pools: Mapping[str, Sequence[Request]]) -> Report:
    """What bulk work gets of a server that interactive calls fill, and what that costs them."""
    seconds, rows = 2 * served.setting.seconds, len(pools["short"][0].ids)
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
    about="served as shipped: stalls at light load, many callers, a share for bulk work",
    file="service-{shape}.json",
    measures=SERVED,
    takes=TAKES - {"threads"} | {"checkpoint"},
    options=Options,
    run=run,
)
