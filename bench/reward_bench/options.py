"""The command line of all suites: common options, then those of each suite."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from reward_bench.suite import ROOT, SHAPES, Own, Setting, Suite
from reward_export.precision import PRECISIONS

AnySuite = Suite[Any]
COMMON: dict[str, dict[str, Any]] = {
    "shape": {"choices": SHAPES, "help": "size of the model; small, or tiny with --quick"},
    "device": {"choices": ("cpu", "cuda"), "help": "where models run; cpu unless given"},
    "precision": {
        "choices": PRECISIONS,
        "help": "precision of our model; unless given, fp32 on a CPU and fp16 on a GPU",
    },
    "seed": {"type": int, "help": "seed of weights, texts and arrivals; 0 unless given"},
    "seconds": {"type": float, "help": "seconds per measurement; 0.5 with --quick"},
    "rounds": {"type": int, "help": "interleaved measurements of each kind; 2 with --quick"},
    "threads": {
        "type": int,
        "help": "threads of engines in process; one for each processor unless given",
    },
    "checkpoint": {"metavar": "ID", "help": "hub id or folder; random weights unless given"},
    "vllm": {"metavar": "PYTHON", "help": "interpreter of an environment that has vLLM"},
    "optimum": {"metavar": "PYTHON", "help": "interpreter of an environment with optimum-onnx"},
}
QUICK = {"shape": "tiny", "seconds": 0.5, "rounds": 2}


def parser(suites: Sequence[AnySuite], about: str | None) -> argparse.ArgumentParser:
    """The parser of the command line."""
    listed = "\n".join(f"  {suite.name:12} {suite.about}" for suite in suites)
    parser = argparse.ArgumentParser(
        prog="python -m reward_bench",
        allow_abbrev=False,
        description=f"{about}\nSuites:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [suite.name for suite in suites]
    parser.add_argument(
        "suites", nargs="+", choices=names, metavar="SUITE", help="suites to run, from the list"
    )
    parser.add_argument("--quick", action="store_true", help="tiny model, short measurements")
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", default=ROOT / ".bench",
        help="where the result files go; .bench in the checkout unless given",
    )  # fmt: skip
    common = parser.add_argument_group("common options")
    for name, about_it in COMMON.items():
        taken = ", ".join(suite.name for suite in suites if name in suite.takes)
        common.add_argument(f"--{name}", **{**about_it, "help": f"{about_it['help']} [{taken}]"})
    for suite in suites:
        if fields(suite.options):
            _add_own(parser.add_argument_group(f"options of the suite {suite.name}"), suite)
    return parser


def _add_own(group: argparse._ArgumentGroup, suite: AnySuite) -> None:
    for own in fields(suite.options):
        said, flag = own.metadata, _flag(suite, own)
        if own.default is False:
            group.add_argument(flag, action="store_true", default=None, help=said["about"])
            continue
        default = "" if own.default in {None, ()} else f"; {_shown(own.default)} unless given"
        group.add_argument(
            flag,
            type=said["kind"],
            choices=said["choices"],
            nargs="+" if isinstance(own.default, tuple) else None,
            metavar=None if said["choices"] else own.name.upper(),
            help=said["about"] + default,
        )


def _flag(suite: AnySuite, own: "Field[Any]") -> str:
    return f"--{suite.name}-{own.name}".replace("_", "-")


def _shown(default: object) -> str:
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def unused(given: argparse.Namespace, suites: Sequence[AnySuite]) -> Iterator[str]:
    """Options that were given, but that none of the suites asked for uses."""
    asked = [suite for suite in suites if suite.name in given.suites]
    for name in COMMON:
        if getattr(given, name) is not None and not any(name in suite.takes for suite in asked):
            yield f"--{name}"
    for suite in suites:
        for own in fields(suite.options):
            if suite not in asked and _given(given, suite, own) is not None:
                yield _flag(suite, own)


def setting_of(suite: AnySuite, given: argparse.Namespace) -> Setting:
    """The setting from the common options and, for those not given, the suite and `--quick`."""
    found: dict[str, Any] = {"seconds": suite.seconds, "rounds": suite.rounds}
    if given.quick:
        found |= QUICK
    if given.device == "cuda":
        found["precision"] = "fp16"
    return Setting(**found | {n: v for n in COMMON if (v := getattr(given, n)) is not None})


def own_of(suite: Suite[Own], given: argparse.Namespace) -> Own:
    """The suite's own options, as given or by default."""
    found = {}
    for own in fields(suite.options):  # type: ignore[arg-type]  # each is a dataclass
        value = _given(given, suite, own)
        if value is None:
            value = own.metadata["quick"] if given.quick else own.default
        found[own.name] = tuple(value) if isinstance(value, list) else value
    return suite.options(**found)


def _given(given: argparse.Namespace, suite: AnySuite, own: "Field[Any]") -> object:
    return getattr(given, _flag(suite, own).removeprefix("--").replace("-", "_"))
