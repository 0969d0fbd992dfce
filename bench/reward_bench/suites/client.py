"""What the client itself costs: time outside of waiting, tokenising, memory over many calls.

The server is a `FakeServer` in another process. A call's *own* time is its whole time minus
the time of its RPCs.
"""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reward_bench.fake_server import fake_server
from reward_bench.processes import resident_mb
from reward_bench.suite import CLIENT, Report, Setting, Suite, option, say
from reward_bench.texts import Texts, long_groups
from reward_client import AsyncRewardClient, Connection, RewardClient, Tokenizer
from reward_client.steps import Ask, Step
from reward_export.conversations import conversations

CALLS_BETWEEN = 2_000  # calls between two readings of the memory


@dataclass(frozen=True)
class Options:
    """How many calls."""

    calls: int = option(2_000, "calls of each kind", quick=200, kind=int)
    memory_calls: int = option(
        100_000, "calls of each client while its memory is watched", quick=4_000, kind=int
    )


def run(_setting: Setting, own: Options) -> Report:
    """Run all parts of the suite."""
    with fake_server() as url:
        times, tokens = own_time(url, own.calls), tokenising(rounds=20)
        say(f"best-of-8, ms: {times}\ntokenising, ms: {tokens}")
        rates = channels(url, own.calls)
        sizes = memory(url, own.memory_calls)
        ends = {name: [mb[0], mb[len(mb) // 2], mb[-1]] for name, mb in sizes.items()}
        say(f"calls per second by channels: {rates}\nresident MB: {ends}")
    return {
        "calls": own.calls,
        "best_of_8_ms": times,
        "tokenising_ms": tokens,
        "calls_a_second_by_channels": rates,
        "memory_calls": own.memory_calls,
        "memory_mb": sizes,
    }


def groups(n_groups: int) -> list[Texts]:
    """Best-of-8 over short real conversations."""
    dialogues = conversations()
    replies = [turn for dialogue in dialogues for turn in dialogue.turns]
    return [
        ("\n".join(dialogues[i % len(dialogues)].turns[:6]) + "\n", replies[8 * i :][:8])
        for i in range(n_groups)
    ]


class Watch:
    """Adds up the time spent in RPCs."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def on(self, client: RewardClient) -> None:
        """Watch a blocking client."""
        do = client._do  # noqa: SLF001  # the one place where it waits

        def timed(step: Step) -> object:
            start = time.perf_counter()
            outcome = do(step)
            if isinstance(step, Ask):
                self.seconds += time.perf_counter() - start
            return outcome

        client._do = timed  # type: ignore[method-assign]  # noqa: SLF001

    def on_async(self, client: AsyncRewardClient) -> None:
        """Watch an awaiting client, one call at a time."""
        do = client._do  # noqa: SLF001

        async def timed(step: Step) -> object:
            start = time.perf_counter()
            outcome = await do(step)
            if isinstance(step, Ask):
                self.seconds += time.perf_counter() - start
            return outcome

        client._do = timed  # type: ignore[method-assign]  # noqa: SLF001


def own_time(url: str, n_calls: int) -> dict[str, dict[str, float]]:
    """Milliseconds of a best-of-8 call, by client."""
    asked = groups(40)

    def blocking() -> list[tuple[float, float]]:
        watch, times = Watch(), []
        with RewardClient(url) as client:
            watch.on(client)
            for i in range(n_calls):
                watch.seconds, start = 0.0, time.perf_counter()
                client.rank(*asked[i % 40])
                times.append((time.perf_counter() - start, watch.seconds))
        return times

    async def awaiting() -> list[tuple[float, float]]:
        watch, times = Watch(), []
        async with AsyncRewardClient(url) as client:
            watch.on_async(client)
            for i in range(n_calls):
                watch.seconds, start = 0.0, time.perf_counter()
                await client.rank(*asked[i % 40])
                times.append((time.perf_counter() - start, watch.seconds))
        return times

    return {
        "RewardClient": _milliseconds(blocking()),
        "AsyncRewardClient": _milliseconds(asyncio.run(awaiting())),
    }


def _milliseconds(times: list[tuple[float, float]]) -> dict[str, float]:
    whole, waiting = 1e3 * np.array(times[len(times) // 10 :]).T  # the first tenth warms up
    return {
        "own_median": float(np.median(whole - waiting)),
        "own_p99": float(np.quantile(whole - waiting, 0.99)),
        "whole_median": float(np.median(whole)),
    }


def tokenising(rounds: int) -> dict[str, float]:
    """Milliseconds to tokenise a best-of-8, by the context's size and the way of tokenising."""
    tokenizer = Tokenizer()
    context, candidates = long_groups(1, seed=0)[0]
    short = context[-2_000:]
    long = (context * (1 + 1_000_000 // len(context)))[:-1] + "\n"
    ways: dict[str, Callable[[], object]] = {
        "2 kB": lambda: tokenizer.encode_group(short, candidates),
        "1 MB": lambda: tokenizer.encode_group(long, candidates),
        "2 kB, each text as a whole": lambda: tokenizer._encode(  # noqa: SLF001  # what is saved
            [short + candidate for candidate in candidates]
        ),
        "1 MB, each text as a whole": lambda: tokenizer._encode(  # noqa: SLF001
            [long + candidate for candidate in candidates]
        ),
    }
    best = dict.fromkeys(ways, float("inf"))
    for name, way in ways.items():  # one after the other: a megabyte leaves the caches cold
        for _ in range(rounds):
            start = time.perf_counter()
            way()
            best[name] = min(best[name], 1e3 * (time.perf_counter() - start))
    return best


def channels(url: str, n_calls: int) -> dict[str, float]:
    """Calls per second of 64 tasks, by the number of connections."""

    async def rate(n_channels: int) -> float:
        async with AsyncRewardClient(url, connection=Connection(channels=n_channels)) as client:
            await _many(client, n_calls // 10)
            start = time.perf_counter()
            await _many(client, n_calls)
            return n_calls / (time.perf_counter() - start)

    return {str(n): asyncio.run(rate(n)) for n in (1, 2, 4)}


async def _many(client: AsyncRewardClient, n_calls: int) -> None:
    left = iter(range(n_calls))

    async def worker() -> None:
        for _ in left:
            await client.score(["Hello there"])

    await asyncio.gather(*(worker() for _ in range(64)))


def memory(url: str, n_calls: int) -> dict[str, list[float]]:
    """Resident MB after each `CALLS_BETWEEN` calls, by client."""

    def blocking() -> list[float]:
        with RewardClient(url) as client:
            n_looks = n_calls // CALLS_BETWEEN
            return [_after(lambda: client.score(["Hello there"])) for _ in range(n_looks)]

    async def awaiting() -> list[float]:
        async with AsyncRewardClient(url) as client:
            sizes = []
            for _ in range(n_calls // CALLS_BETWEEN):
                await _many(client, CALLS_BETWEEN)
                sizes.append(resident_mb([os.getpid()]))
            return sizes

    return {"RewardClient": blocking(), "AsyncRewardClient": asyncio.run(awaiting())}


def _after(call: Callable[[], object]) -> float:
    for _ in range(CALLS_BETWEEN):
        call()
    return resident_mb([os.getpid()])


SUITE = Suite(
    name="client",
    about="the client's own costs: time without waiting, tokenising, memory",
    file="client.json",
    measures=CLIENT,
    takes=frozenset(),
    options=Options,
    run=run,
)
