"""Fine-tune a GPT-2 classifier on labelled rows, as the model card did.

A row holds "context", "candidate" and "label" (1 accepted, 0 not), or "retry" and
"remaining_user_messages" instead of the label: docs/training.md.
"""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `gpt2-reward train` takes."""
    parser.add_argument("rows", metavar="ROWS", help=".jsonl or .parquet file, or hub id")
    parser.add_argument("--output", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--validation", help="rows to evaluate on, which are not trained on")
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--base", help="hub id or folder of a GPT-2 to start from")
    start.add_argument(
        "--from-scratch",
        metavar="LAYERS,HEADS,HIDDEN",
        help="a small model instead, such as 4,4,128",
    )
    _add_rules(parser)
    _add_hyper_parameters(parser)
    parser.add_argument("--resume", action="store_true", help="go on with a run that was stopped")
    parser.add_argument(
        "--save-dtype", choices=("float32", "float16"), default="float32", help="of the weights"
    )


def _add_rules(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--min-remaining",
        type=int,
        default=1,
        help="accepted means no retry, and at least so many further user messages; default: 1",
    )
    parser.add_argument(
        "--pack",
        type=int,
        default=0,
        metavar="TOKENS",
        help='compute what neighbouring rows of one "group" share once: items of at most so many '
        "tokens, which --batch-size then counts; default: a row an item",
    )


def _add_hyper_parameters(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--learning-rate", type=float, default=1e-5, help="default: %(default)s")
    add("--scheduler", default="linear", help="of the learning rate; default: %(default)s")
    add("--warmup", type=float, default=0.0, help="share of the steps; default: %(default)s")
    add("--weight-decay", type=float, default=0.0, help="default: %(default)s")
    add("--batch-size", type=int, default=16, help="a device and step; default: %(default)s")
    add("--accumulation", type=int, default=1, help="steps added up; default: %(default)s")
    add("--epochs", type=float, default=2.0, help="default: %(default)s")
    add("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    add("--token-loss", type=float, default=0.0, help="weight of every token's own loss")
    add("--embedding-epochs", type=int, default=3, help="with --from-scratch")
    add("--seed", type=int, default=0, help="default: %(default)s")
    add("--eval-steps", type=int, default=1000, help="and intermediate checkpoints")


def run(arguments: argparse.Namespace) -> int:
    """Train; figures on standard error, the folder on output."""
    # here, not above: --help must not wait for torch
    from reward_train.rows import RowRules  # noqa: PLC0415
    from reward_train.scratch import Scratch, Shape  # noqa: PLC0415
    from reward_train.training import TrainOptions, train  # noqa: PLC0415

    given = vars(arguments)
    shape = given.pop("from_scratch")
    rules = RowRules(given.pop("min_remaining"), given.pop("pack"))
    scratch = Scratch(Shape.parse(shape), arguments.seed) if shape else None
    found = train(TrainOptions(**given, scratch=scratch, rules=rules), _say)
    if found is not None:
        for name, value in found.items():
            _say(f"{name}: {value:.4f}")
        print(arguments.output)
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
