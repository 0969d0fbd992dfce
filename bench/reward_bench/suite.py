"""What a suite is: a function from typed options to a report, and what its command line says."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

ROOT = Path(__file__).parents[2]
SHAPES = {"tiny": (2, 2, 64), "small": (12, 12, 768), "medium": (24, 16, 1024)}

# what results depend on, as paths in the checkout: a result is old once any of them has changed
_BUILDERS = ("attention", "fold", "graph", "linear", "ops", "precision", "ranks", "smooth", "tree")
_GRAPH = ("batches", "checkpoint", "float16", "varlen", *_BUILDERS)
GRAPH = tuple(f"export/reward_export/{name}.py" for name in _GRAPH)
CLIENT = ("client/reward_client", "client/reward_text", "client/reward_contract")
_SERVED = ("backend", "launch.py", "model_process.py", "options.py", "server.py")
_CONFIGURATION = "model_repository/gpt2_reward/config.pbtxt"
SERVED = (*GRAPH, _CONFIGURATION, *(f"serve/reward_serve/{name}" for name in _SERVED))

Report = dict[str, object]  # JSON
Own = TypeVar("Own")


@dataclass(frozen=True)
class Setting:
    """Options that several suites have in common.

    Attributes:
        shape: of the model with random weights: a name in `SHAPES` (layers, heads, hidden size).
        device: cpu or cuda.
        precision: of our model; the plain export is float32.
        seed: of weights, texts and arrivals.
        seconds: of one measurement.
        rounds: interleaved measurements of each kind.
        threads: of engines in process; a server takes every core.
        checkpoint: hub id or folder to measure instead of random weights.
        vllm: interpreter of an environment that has vLLM.
        optimum: interpreter of an environment that has optimum-onnx.
    """

    shape: str = "small"
    device: str = "cpu"
    precision: str = "fp32"
    seed: int = 0
    seconds: float = 4.0
    rounds: int = 3
    threads: int = os.cpu_count() or 1
    checkpoint: str | None = None
    vllm: str | None = None
    optimum: str | None = None


@dataclass(frozen=True)
class NoOptions:
    """The options of a suite that has none of its own."""


@dataclass(frozen=True)
class Suite(Generic[Own]):
    """A named benchmark.

    Attributes:
        name: that of its module.
        about: what it measures, for `--help`.
        file: the name of its result file, in which `{shape}` is filled in.
        measures: what its result depends on besides its own module, as paths in the checkout.
        takes: the fields of `Setting` that it uses; others are refused on the command line.
        options: dataclass of the suite's own options, each made by `option`.
        run: measures. -> its part of the report.
        seconds: of one measurement, unless `--seconds` or `--quick` is given.
        rounds: likewise.
    """

    name: str
    about: str
    file: str
    measures: tuple[str, ...]
    takes: frozenset[str]
    options: type[Own]
    run: Callable[[Setting, Own], Report]
    seconds: float = 4.0
    rounds: int = 3


def option(
    default: Any,  # noqa: ANN401  # as `dataclasses.field` has it
    about: str,
    *,
    quick: object = None,
    kind: Callable[[str], object] = str,
    choices: Sequence[str] | None = None,
) -> Any:  # noqa: ANN401
    """A field of a suite's own options, which is `--SUITE-FIELD` on the command line.

    Args:
        default: its value; a tuple makes an option of several values, False makes a flag.
        about: what it is, for `--help`.
        quick: its value under `--quick`, if that differs.
        kind: makes one value from text.
        choices: the values allowed.
    """
    said = {"about": about, "quick": default if quick is None else quick}
    return field(default=default, metadata={**said, "kind": kind, "choices": choices})


def say(line: str) -> None:
    """Write a line of progress, or figures as they are found, to standard error."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
