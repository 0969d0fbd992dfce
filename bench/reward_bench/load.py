"""A load generator: closed loops and Poisson arrivals over gRPC, every answer checked.

Requests are token ids made beforehand, with their expected rewards, so that the generator does
little besides sending. Latency counts from the time at which a request was *meant* to be sent: if
the generator falls behind, the figures show it.
"""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from reward_contract import INPUT_IDS, MODEL_NAME, REWARD

Outcome = Literal["ok", "overloaded", "expired", "failed"]
QUANTILES = (0.5, 0.9, 0.95, 0.99)
MIN_CALLS = 3  # of each caller: the first fills the queue and is not counted
# Triton answers both with UNAVAILABLE; only its message tells them apart
REFUSALS: dict[str, Outcome] = {
    "exceeds maximum queue size": "overloaded",
    "timeout expired": "expired",
}


class WrongAnswerError(RuntimeError):
    """Rewards differ from those computed beforehand."""


@dataclass(frozen=True)
class Request:
    """Rows that are sent together: int32 ids [B, S], and their float32 rewards [B]."""

    ids: NDArray[np.int32]
    rewards: NDArray[np.float32]


@dataclass(frozen=True)
class Load:
    """What is sent, and to which model.

    Attributes:
        pool: requests, sent in turn and again from the first after the last.
        model: its name in the server.
        priority: 0 leaves it to the server.
        tolerance: how far a reward may be from the one computed beforehand.
    """

    pool: Sequence[Request]
    model: str = MODEL_NAME
    priority: int = 0
    tolerance: float = 1e-4


@dataclass(frozen=True)
class Call:
    """A request and its outcome; times in seconds since the loop began."""

    intended_s: float
    sent_s: float
    done_s: float
    outcome: Outcome
    n_rows: int

    @property
    def latency_s(self) -> float:
        """Seconds from when it was meant to be sent."""
        return self.done_s - self.intended_s


Loop = Callable[["Sender"], Awaitable[list[Call]]]


class Sender:
    """Sends a load's requests over one connection and notes what became of each."""

    def __init__(self, client: InferenceServerClient, load: Load) -> None:
        self._client, self._load = client, load
        self._inputs = [[_input(request.ids)] for request in load.pool]
        self._start = time.perf_counter()

    def now(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    async def send(self, number: int, intended_s: float) -> Call:
        """Send the request with this number, and wait for the answer.

        Raises:
            WrongAnswerError: the rewards are wrong.
        """
        index = number % len(self._load.pool)
        request, sent_s = self._load.pool[index], self.now()
        try:
            answer = await self._client.infer(
                self._load.model, self._inputs[index], priority=self._load.priority
            )
        except InferenceServerException as error:
            return Call(intended_s, sent_s, self.now(), outcome_of(error), len(request.ids))
        done_s = self.now()
        check(answer.as_numpy(REWARD.name)[:, 0], request.rewards, self._load.tolerance)
        return Call(intended_s, sent_s, done_s, "ok", len(request.ids))


def closed_loop(in_flight: int, seconds: float) -> Loop:
    """`in_flight` callers, each of which calls again once it is answered, at least three times."""

    async def loop(sender: Sender) -> list[Call]:
        calls: list[Call] = []

        async def caller(first: int) -> None:
            for count in itertools.count():
                intended_s = sender.now()
                if intended_s >= seconds and count >= MIN_CALLS:
                    return
                calls.append(await sender.send(first + count * in_flight, intended_s))

        await asyncio.gather(*map(caller, range(in_flight)))
        return calls

    return loop


def once(n_requests: int, in_flight: int) -> Loop:
    """The first `n_requests` of the pool, in order and once each, `in_flight` at a time."""

    async def loop(sender: Sender) -> list[Call]:
        numbers, calls = iter(range(n_requests)), list[Call]()

        async def caller() -> None:
            for number in numbers:  # shared by all callers
                calls.append(await sender.send(number, sender.now()))

        await asyncio.gather(*(caller() for _ in range(in_flight)))
        return calls

    return loop


def open_loop(arrivals_s: NDArray[np.float64]) -> Loop:
    """Requests at given times, whether or not earlier ones have been answered."""

    async def loop(sender: Sender) -> list[Call]:
        tasks = []
        for number, intended_s in enumerate(arrivals_s.tolist()):
            await asyncio.sleep(max(0.0, intended_s - sender.now()))
            tasks.append(asyncio.create_task(sender.send(number, intended_s)))
        return await asyncio.gather(*tasks)

    return loop


def poisson_arrivals(rate: float, seconds: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Arrival times in [0, seconds), whose gaps are exponential with mean 1 / rate."""
    n_surely = int(rate * seconds + 10 * (rate * seconds) ** 0.5 + 10)
    times = np.cumsum(rng.exponential(1 / rate, n_surely))
    within: NDArray[np.float64] = times[times < seconds]
    return within


def drive(url: str, *driven: tuple[Load, Loop]) -> list[list[Call]]:
    """Run loops at the same time, each over a connection of its own. -> calls of each."""

    async def one(load: Load, loop: Loop) -> list[Call]:
        # otherwise gRPC shares one connection between channels with the same options
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with InferenceServerClient(url, channel_args=options) as client:
            await client.is_model_ready(load.model)  # connects
            return await loop(Sender(client, load))

    async def everything() -> list[list[Call]]:
        return await asyncio.gather(*(one(load, loop) for load, loop in driven))

    return asyncio.run(everything())


def outcome_of(error: InferenceServerException) -> Outcome:
    """The outcome that a refusal's message names."""
    words = str(error.message()).lower()
    return next((outcome for part, outcome in REFUSALS.items() if part in words), "failed")


def check(rewards: NDArray[np.float32], wanted: NDArray[np.float32], tolerance: float) -> None:
    """Compare an answer with what was computed beforehand.

    Raises:
        WrongAnswerError: they differ by more than the tolerance, or something is not finite.
    """
    difference = float(np.abs(rewards - wanted).max()) if len(rewards) == len(wanted) else np.nan
    if not difference <= tolerance:  # NaN fails as well
        raise WrongAnswerError(f"a reward is off by {difference}; at most {tolerance} is allowed")


def steady_rows_a_second(calls: Sequence[Call], in_flight: int, seconds: float) -> float:
    """Rows per second of a closed loop, without its first and last round.

    Counted from the moment at which as many calls as are in flight have ended, to the last end
    within the time, so that neither filling nor emptying the queue counts. If calls take so long
    that no more than two per caller end within the time, those that end later count too.

    Raises:
        ValueError: too few calls have ended to tell.
    """
    ended = sorted((call for call in calls if call.outcome == "ok"), key=lambda call: call.done_s)
    in_time = [call for call in ended if call.done_s <= seconds]
    counted = (in_time if len(in_time) > 2 * in_flight else ended)[in_flight:]
    if not counted:
        raise ValueError(f"{len(ended)} calls are too few to tell, with {in_flight} in flight")
    return sum(call.n_rows for call in counted) / (counted[-1].done_s - ended[in_flight - 1].done_s)


def summary(calls: Sequence[Call]) -> dict[str, object]:
    """Counts by outcome; milliseconds to answers and refusals, and of the generator's delay."""
    answered = [call.latency_s for call in calls if call.outcome == "ok"]
    overloaded = [call.latency_s for call in calls if call.outcome == "overloaded"]
    behind = [call.sent_s - call.intended_s for call in calls]
    return {
        "calls": len(calls),
        "outcomes": dict(Counter(call.outcome for call in calls)),
        "latency_ms": percentiles_ms(answered),
        "refusal_ms": percentiles_ms(overloaded),
        "generator_behind_ms": percentiles_ms(behind),
    }


def unanswered_s(calls: Sequence[Call]) -> list[float]:
    """For how long before each answer calls waited and none was answered.

    One value for each answer, in their order: seconds from the previous answer or, if no call was
    waiting then, from when the first of those that now wait was sent. If the server works whenever
    a call waits, no value is longer than its executions; what it oversleeps is added.
    """
    found, last_s = [], float("-inf")
    ended = sorted((call for call in calls if call.outcome == "ok"), key=lambda call: call.done_s)
    first_sent_s = np.minimum.accumulate([call.sent_s for call in reversed(ended)])[::-1]
    for call, waiting_since_s in zip(ended, first_sent_s.tolist(), strict=True):
        found.append(call.done_s - max(last_s, waiting_since_s))
        last_s = call.done_s
    return found


def no_stall_s(arrivals_s: Sequence[float], execution_s: float) -> list[float]:
    """Latencies of a server that executes one call after the other and never pauses.

    What calls wait for each other at that load (the queue M/D/1 if arrivals are Poisson's), and
    what a real server can be compared with.
    """
    found, free_s = [], 0.0
    for arrival_s in arrivals_s:
        free_s = max(free_s, arrival_s) + execution_s
        found.append(free_s - arrival_s)
    return found


def percentiles_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds at each of `QUANTILES`, and the largest; empty if `seconds` is."""
    if not seconds:
        return {}
    found = {f"p{100 * q:.0f}": 1e3 * float(np.quantile(seconds, q)) for q in QUANTILES}
    return {**found, "max": 1e3 * max(seconds)}


def _input(ids: NDArray[np.int32]) -> InferInput:
    tensor = InferInput(INPUT_IDS.name, ids.shape, INPUT_IDS.dtype)
    tensor.set_data_from_numpy(ids)
    return tensor
