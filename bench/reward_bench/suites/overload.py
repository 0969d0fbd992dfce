"""Five times as many calls as the server can answer: how many it answers, and what it refuses.

The capacity is measured first. Then come Poisson arrivals at half of it, at five times it, and at
half of it again, without a pause, while the memory of the server's processes is watched. Every
answer is checked. The configuration is the checked-in one except for two values, set as
docs/operations.md tells operators to set them: the queue's bound to two seconds of this machine's
work, and on a CPU `max_batch_size` to 8, because an execution is not interrupted.
"""

import re
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from reward_bench.load import (
    Call,
    Request,
    closed_loop,
    drive,
    open_loop,
    percentiles_ms,
    poisson_arrivals,
    summary,
)
from reward_bench.pools import chat_pools, rows_pool
from reward_bench.processes import resident_mb
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
from reward_bench.suite import CLIENT, SERVED, NoOptions, Report, Setting, Suite, say
from reward_bench.texts import N_CANDIDATES
from reward_contract import MODEL_NAME

FACTOR, BEFORE_AND_AFTER, INTERACTIVE_SHARE = 5.0, 0.5, 0.2
CPU_ROWS = 8  # per execution at most: a best-of-8 call
QUEUED_S = 2.0  # of work that the queue holds: as long as a user in a chat may wait
ROWS, DIFFERENT = 2, 48  # per call, and calls: equal ones in a batch would be computed once
LOOK_EVERY_S = 0.1


def run(setting: Setting, _own: NoOptions) -> Report:
    """Measure capacity, overload, recovery, and interactive calls alongside too much bulk work."""
    with tempfile.TemporaryDirectory() as folder:
        repository = publish(setting, Path(folder), ())
        if setting.device == "cpu":
            change(repository, "max_batch_size", CPU_ROWS)
        with served_from(setting, repository) as served:
            pools = {"work": rows_pool(ROWS, DIFFERENT, setting.seed)}
            pools["short"] = chat_pools(8, setting.seed)["short"]
            requests = answered(served, pools)
            at_once = 2 * served.max_batch_size() // ROWS  # so that executions are full
            seconds = 8 * setting.seconds
            capacity = rows_a_second(served, requests["work"], at_once, seconds=seconds) / ROWS
            chats = rows_a_second(served, requests["short"], 4) / N_CANDIDATES
        say(f"capacity: {capacity:.1f} calls/s of {ROWS} full rows")
        queue = max(2, round(QUEUED_S * capacity))
        shipped = change(repository, "max_queue_size", queue)
        with served_from(setting, repository) as served:
            found = overload(served, requests["work"], capacity, queue)
            found["interactive"] = interactive(
                served, requests, capacity, INTERACTIVE_SHARE * chats
            )
            found["max_batch_size"] = served.max_batch_size()
    return {
        "rows": ROWS,
        "capacity_calls_a_second": capacity,
        "factor": FACTOR,
        "max_queue_size": queue,
        "max_queue_size_shipped": shipped,
        "queued_s": QUEUED_S,
        "max_wait_s": max_wait_s(),
        **found,
    }


def change(repository: Path, key: str, value: int) -> int:
    """Set a number wherever its key occurs in the served configuration. -> its previous value."""
    file = repository / MODEL_NAME / CONFIG.name
    before = file.read_text()
    file.write_text(with_number(before, key, value))
    return int(re.findall(rf"\b{key}: (\d+)", before)[0])


def max_wait_s() -> float:
    """Seconds for which a call of the default priority may wait in the queue."""
    config = text_format.Parse(CONFIG.read_text(), model_config_pb2.ModelConfig())
    policy = config.dynamic_batching.default_queue_policy
    return float(policy.default_timeout_microseconds / 1e6)


def overload(served: Host, pool: Sequence[Request], capacity: float, queue: int) -> Report:
    """Offer half of the capacity, five times it, and half of it again."""
    fill_s = queue / ((FACTOR - 1) * capacity) + 2
    seconds = fill_s + max(12 * served.setting.seconds, 4 * QUEUED_S, 12 / capacity)
    quiet_s = max(4 * served.setting.seconds, 12 / capacity)
    rng, load = np.random.default_rng(served.setting.seed), served.load(pool)
    phases = (("before", BEFORE_AND_AFTER, quiet_s), ("overload", FACTOR, seconds))
    after = ("after", BEFORE_AND_AFTER, 2 * quiet_s + QUEUED_S)
    pids = [pid for group in served.processes().values() for pid in group]
    phased = {}
    with memory(pids) as sizes:
        start = time.perf_counter()
        arrivals, ends, offset = [], [], 0.0
        for _name, factor, length in (*phases, after):
            arrivals.append(offset + poisson_arrivals(factor * capacity, length, rng))
            offset += length
            ends.append(offset)
        (calls,) = drive(served.url, (load, open_loop(np.concatenate(arrivals))))
        took = time.perf_counter() - start
    begins = [0.0, *ends[:-1]]
    for (name, factor, length), begin, end in zip((*phases, after), begins, ends, strict=True):
        own = [call for call in calls if begin <= call.intended_s < end]
        done = [c for c in calls if c.outcome == "ok" and begin <= c.done_s < end]
        phased[name] = {
            "offered_calls_a_second": factor * capacity,
            "seconds": length,
            "answered_calls_a_second": len(done) / length,
            **summary(own),
        }
        say(f"{name}: {phased[name]['answered_calls_a_second']:.1f} calls/s answered of "
            f"{factor * capacity:.1f}")  # fmt: skip
    overloaded = [c for c in calls if begins[1] <= c.intended_s < ends[1]]
    kept = kept_share(overloaded, begins[1] + fill_s, ends[1], capacity)
    return {
        "phases": phased,
        "throughput_kept": kept,
        "recovered_after_s": recovery_s(calls, ends[1]),
        "took_s": took,
        "memory_mb": sizes,
        "timeline": timeline(calls),
    }


def kept_share(calls: Sequence[Call], begin: float, end: float, capacity: float) -> float:
    """Calls answered per second while the queue is full, over the capacity."""
    done = [c for c in calls if c.outcome == "ok" and begin <= c.done_s < end]
    return len(done) / (end - begin) / capacity


def recovery_s(calls: Sequence[Call], end: float) -> float | None:
    """Seconds from the load's fall to when the last call refused after it was meant to be sent."""
    refused = [c.intended_s for c in calls if c.intended_s >= end and c.outcome != "ok"]
    return max(refused) - end if refused else 0.0


def timeline(calls: Sequence[Call], step_s: float = 1.0) -> list[dict[str, float]]:
    """Calls, answers and median latency, by the second in which calls were meant to be sent."""
    found = []
    for second in range(int(max(call.intended_s for call in calls) // step_s) + 1):
        own = [c for c in calls if second <= c.intended_s / step_s < second + 1]
        answered = [c.latency_s for c in own if c.outcome == "ok"]
        found.append(
            {
                "second": second * step_s,
                "calls": len(own),
                "answered": len(answered),
                "p50_ms": percentiles_ms(answered).get("p50", 0.0),
            }
        )
    return found


def interactive(
    served: Host, requests: Mapping[str, Sequence[Request]], capacity: float, rate: float
) -> Report:
    """Latency of interactive calls alone, and alongside bulk work at five times the capacity."""
    rng, setting = np.random.default_rng(served.setting.seed + 1), served.setting
    chats = served.load(requests["short"], priority=INTERACTIVE)
    seconds = max(4 * setting.seconds, 25 / rate)
    arrivals = poisson_arrivals(rate, seconds, rng)
    (alone,) = drive(served.url, (chats, open_loop(arrivals)))
    bulk = served.load(requests["work"], priority=BULK)
    surplus = open_loop(poisson_arrivals(FACTOR * capacity, seconds + 1, rng))
    beside, work = drive(served.url, (chats, open_loop(arrivals)), (bulk, surplus))
    # a closed loop with two calls in flight: what a well-behaved bulk client does instead
    gentle, _ = drive(served.url, (chats, open_loop(arrivals)), (bulk, closed_loop(2, seconds)))
    say(f"interactive beside bulk: {percentiles_ms([c.latency_s for c in beside])}")
    return {
        "calls_a_second": rate,
        "alone": summary(alone),
        "beside bulk at 5 times capacity": summary(beside),
        "beside bulk, 2 in flight": summary(gentle),
        "bulk": summary(work),
    }


@contextmanager
def memory(pids: Sequence[int]) -> Iterator[list[float]]:
    """Resident MB of the processes, sampled until the block ends."""
    sizes: list[float] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(LOOK_EVERY_S):
            sizes.append(round(resident_mb(pids), 1))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield sizes
    finally:
        ended.set()
        watcher.join()


SUITE = Suite(
    name="overload",
    about="served: five times as many calls as it can answer",
    file="overload-{shape}.json",
    measures=(*CLIENT, *SERVED),
    takes=TAKES - {"rounds"},
    options=NoOptions,
    run=run,
)
