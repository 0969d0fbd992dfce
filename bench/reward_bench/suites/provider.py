"""The graphs for GPUs on a device, within minutes: whether they are right, and how fast they are.

    python -m reward_bench provider --device cuda --shape medium

Batches of every shape, rewards against float32 on the CPU, each of the kernels that decide the
time by itself, throughput and latency, memory over changing shapes, and Triton with the same
repository; measured figures are next to predicted ones. Each step has a process of its own: one
that fails, crashes or hangs becomes a line of the table, and the others still run. On a CPU the
same steps run with the graphs that a CPU can run.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from reward_bench.provider.bench import Bench
from reward_bench.provider.parts import STEPS
from reward_bench.provider.steps import Step, in_time
from reward_bench.provider.table import as_json, as_text, lines
from reward_bench.suite import GRAPH, Report, Setting, Suite, option, say


@dataclass(frozen=True)
class Options:
    """How much is measured."""

    limit: float = option(480.0, "seconds for all steps together", kind=float)
    batches: int = option(1_000, "batches of changing shape", quick=20, kind=int)
    positions: int = option(
        1 << 20, "rows times columns of the largest batch", quick=4096, kind=int
    )


def run(setting: Setting, own: Options) -> Report:
    """Run all steps. -> their outcomes, the table, and the names of figures that are wrong."""
    steps = [Step(name, function, share) for name, (function, share) in STEPS.items()]
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(setting, Path(name), own.batches, own.positions)
        outcomes = in_time(steps, bench, Path(name), own.limit)
    table = lines(outcomes)
    say(as_text(as_json(table)))
    return {
        "limit_s": own.limit,
        "steps": outcomes,
        "table": as_json(table),
        "failed": [line.what for line in table if not line.is_right],
    }


SUITE = Suite(
    name="provider",
    about="in process and in Triton: the graphs for GPUs on a device, measured and predicted",
    file="provider-{shape}.json",
    measures=GRAPH,
    takes=frozenset({"shape", "device", "seed", "rounds", "seconds", "threads", "checkpoint"}),
    options=Options,
    run=run,
    seconds=2.0,
    rounds=20,
)
