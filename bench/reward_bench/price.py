"""What one call for the best of N costs: here, with the plain export, and with vLLM.

The price of a call is the machine's time: rows per second at the number of calls in flight that
suits an engine best, turned into milliseconds per call. vLLM runs in process, which spares it a
server, with one call or several joined into one batch, and its prefix cache is cold each time.
"""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from reward_bench.checkpoints import checkpoint_of
from reward_bench.contest import save_tokenizer
from reward_bench.engines import Engine, Spec, start, write_requests
from reward_bench.engines import Request as Padded
from reward_bench.load import (
    Request,
    check,
    drive,
    open_loop,
    poisson_arrivals,
    summary,
)
from reward_bench.machine import wait_until_idle
from reward_bench.rivals import checked
from reward_bench.rounds import Spread, interleaved, ratio, spread
from reward_bench.serving import EXACT, PLAIN, Host, rows_a_second
from reward_bench.suite import Report, Setting, say
from reward_contract import CONTRACT, MODEL_NAME

BEST_OF = (1, 4, 8, 16)
MINE, THEIRS = 16, 4  # candidates of the calls that the headline figure compares
IN_FLIGHT = (1, 4)
OFFERED = (0.5, 0.8)  # shares of the capacity for calls with the same number of candidates
# engines of vLLM, and how far their rewards may be from ours in float32
VLLM = {"vllm-float32": EXACT, "vllm-bfloat16": 5e-2}

ByBestOf = Mapping[str, Sequence[Request]]  # requests by number of candidates


def prices(served: Host, pools: ByBestOf) -> Report:
    """Milliseconds per call by engine and number of candidates, and the headline figure."""
    setting = served.setting
    named = {
        f"{model} {n}": partial(ms_per_call, served, pools[str(n)], model)
        for model in (MODEL_NAME, PLAIN)
        for n in BEST_OF
    }
    with ExitStack() as running:
        for engine in vllm_engines(setting, pools, running):
            named |= {
                f"{engine.name} {n}": partial(ms_in_process, engine, pools[str(n)], n)
                for n in BEST_OF
            }
        taken = interleaved(named, setting.rounds)
    say(f"ms per call: { {name: round(float(np.median(ms))) for name, ms in taken.items()} }")
    return by_engine(taken)


def by_engine(taken: Mapping[str, Sequence[float]]) -> Report:
    """The measurements by engine and number of candidates, and ours over each rival's."""
    found: dict[str, dict[str, Spread]] = {}
    for name, ms in taken.items():
        engine, n = name.rsplit(" ", 1)
        found.setdefault(engine, {})[n] = spread(ms)
    mine = taken[f"{MODEL_NAME} {MINE}"]
    over = {
        engine: ratio(mine, taken[f"{engine} {THEIRS}"]) for engine in found if engine != MODEL_NAME
    }
    return {"ms_per_call": found, f"best-of-{MINE} over best-of-{THEIRS}": over}


def ms_per_call(served: Host, pool: Sequence[Request], model: str) -> float:
    """Milliseconds per call on the server, at the number of calls in flight that suits best."""
    wait_until_idle()  # threads of the previous engine keep spinning for a while
    rows = max(rows_a_second(served, pool, n, model) for n in IN_FLIGHT)
    return 1e3 * len(pool[0].ids) / rows


def ms_in_process(engine: Engine, pool: Sequence[Request], n: int) -> float:
    """Milliseconds per call, one by one or all in one batch, whichever is cheaper."""
    wait_until_idle()
    alone = [ask(engine, name_of(n, i), [request]) for i, request in enumerate(pool)]
    joined = ask(engine, name_of(n, None), pool)
    return 1e3 * min(sum(alone), joined) / len(pool)


def ask(engine: Engine, name: str, requests: Sequence[Request]) -> float:
    """Seconds that an engine needs for requests that it knows by name; rewards are checked.

    Raises:
        WrongAnswerError: a reward differs from ours by more than the engine may.
    """
    answer = engine.ask(name)
    wanted = np.concatenate([request.rewards for request in requests])
    check(answer.rewards.astype(np.float32), wanted, VLLM[engine.name])
    return answer.seconds


def vllm_engines(setting: Setting, pools: ByBestOf, running: ExitStack) -> list[Engine]:
    """Warm workers with the setting's checkpoint; none without an interpreter that has vLLM.

    They are killed when `running` ends.

    Raises:
        RivalEnvironmentError: vLLM would not be at its best there.
    """
    if setting.vllm is None:
        say("vLLM is left out: --vllm names the interpreter of an environment that has it")
        return []
    checked("vllm", setting.vllm, setting.device)
    folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
    source = Path(checkpoint_of(setting, folder / "checkpoint"))
    save_tokenizer(source)
    write_requests(folder / "requests.npz", named_requests(pools))
    engines = []
    for name in VLLM:
        spec = Spec(name, setting.vllm, name, source)
        engine = start(spec, folder / "requests.npz", setting.threads)
        running.callback(engine.kill)
        engine.wait_until_ready()
        engine.ask(name_of(BEST_OF[0], 0))
        engines.append(engine)
    return engines


def named_requests(pools: ByBestOf) -> dict[str, list[Padded]]:
    """Requests by name: each by itself, and all with the same number of candidates joined."""
    found: dict[str, list[Padded]] = {}
    for n in BEST_OF:
        ids = {name_of(n, i): request.ids for i, request in enumerate(pools[str(n)])}
        ids[name_of(n, None)] = np.concatenate(list(ids.values()))
        for name, rows in ids.items():
            lengths = np.maximum(1, (rows != CONTRACT.pad_token_id).sum(axis=1))
            found[name] = [(rows, lengths)]
    return found


def name_of(n_candidates: int, number: int | None) -> str:
    """The name of a request or, if `number` is None, of all of them joined."""
    return f"best of {n_candidates}, {'joined' if number is None else number}"


def tails(served: Host, pools: ByBestOf, n_calls: int) -> Report:
    """Latency of Poisson arrivals by number of candidates, at shares of the capacity for each."""
    rng = np.random.default_rng(served.setting.seed)
    found: Report = {}
    for n in BEST_OF:
        pool, offered = pools[str(n)], dict[str, Report]()
        capacity = max(rows_a_second(served, pool, k) for k in IN_FLIGHT) / n
        for share in OFFERED:
            rate = share * capacity
            # somewhat longer than `n_calls` arrivals take on average
            arrivals = poisson_arrivals(rate, 1.2 * n_calls / rate + 2, rng)[:n_calls]
            (calls,) = drive(served.url, (served.load(pool), open_loop(arrivals)))
            offered[str(share)] = {"rate": rate, **summary(calls)}
            say(f"best of {n}, {share:.0%} of capacity: {offered[str(share)]['latency_ms']}")
        found[f"best of {n}"] = {"capacity_calls_a_second": capacity, "offered": offered}
    return found
