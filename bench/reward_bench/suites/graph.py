"""The graph in process against a plain export, PyTorch and, if interpreters are given, rivals.

python -m reward_bench graph --shape small --rounds 6 --vllm /path/to/python-with-vllm
"""

from dataclasses import dataclass

from reward_bench.contest import TAKES, contest
from reward_bench.rivals import Rivals
from reward_bench.suite import GRAPH, Report, Setting, Suite, option


@dataclass(frozen=True)
class Options:
    """Which engines."""

    engines: tuple[str, ...] = option(
        (), "engines to run, besides plain; all but vLLM without its cache unless given"
    )


def run(setting: Setting, own: Options) -> Report:
    """Measure our engines and those rivals whose interpreters were given."""
    given = {"vllm": setting.vllm, "optimum": setting.optimum}
    pythons = {name: python for name, python in given.items() if python}
    return contest(setting, Rivals(pythons, own.engines))


SUITE = Suite(
    name="graph",
    about="in process: the graph against other engines",
    file="graph-{shape}.json",
    measures=GRAPH,
    takes=TAKES,
    options=Options,
    run=run,
)
