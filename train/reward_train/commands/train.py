"""Fine-tune a GPT-2 classifier on labelled rows, as the model card did.

A row holds "context" or "messages", "candidate" and "label" (1 accepted, 0 not), or "retry" and
"remaining_user_messages" instead of the label; see docs/training.md.
"""

import argparse
import sys
from pathlib import Path

from reward_client.arguments import format_argument
from reward_contract import CONTRACT
from reward_text import FORMATS

EXTRA = "train"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `gpt2-reward train`."""
    parser.add_argument(
        "rows", metavar="ROWS", help="The labelled rows: a .jsonl or .parquet file, or a hub id."
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="Save the checkpoint into this folder.",
    )
    parser.add_argument(
        "--validation",
        metavar="ROWS",
        help="Evaluate on these rows, which are not trained on. Default: no evaluation.",
    )
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument(
        "--base", metavar="CHECKPOINT", help="Start from this GPT-2: a hub id or a folder."
    )
    start.add_argument(
        "--from-scratch",
        metavar="LAYERS,HEADS,HIDDEN",
        help="Start from a new model of this shape, such as 4,4,128.",
    )
    parser.add_argument(
        "--resume", action="store_true", help="Continue a run that was stopped before its end."
    )
    parser.add_argument(
        "--save-dtype",
        choices=("float32", "float16"),
        default="float32",
        help="Save the weights in this type.",
    )
    rows = parser.add_argument_group("rows")
    _add_rules(rows)
    _add_usage(rows)
    _add_hyper_parameters(parser.add_argument_group("training"))


def _add_rules(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--min-remaining",
        type=int,
        default=2,
        metavar="N",
        help="Label a row as accepted if there was no retry and the user sent at least N further "
        "messages; rows with a label keep theirs.",
    )
    group.add_argument(
        "--pack",
        type=int,
        default=0,
        metavar="TOKENS",
        help='Pack neighbouring rows of one "group" into items of at most this many tokens, and '
        "compute the tokens that they share once; --batch-size then counts items. 0 makes each "
        "row an item.",
    )


def _add_usage(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--format",
        dest="chat_format",
        type=format_argument,
        metavar="NAME|FILE",
        help="Render messages in this format, and write it into the checkpoint's reward.json for "
        f"clients: {', '.join(FORMATS)}, or a JSON file. Texts have to be in this format already. "
        "Default: none, for rows with texts.",
    )
    group.add_argument(
        "--max-tokens",
        type=int,
        default=CONTRACT.max_tokens,
        metavar="N",
        help="Read the last N tokens of each text.",
    )


def _add_hyper_parameters(group: "argparse._ArgumentGroup") -> None:
    for name, kind, default, text in (
        ("learning-rate", float, 1e-5, "Use this learning rate at its peak."),
        ("scheduler", str, "linear", "Lower the learning rate by this schedule of transformers."),
        ("warmup", float, 0.0, "Warm the learning rate up over this share of the steps."),
        ("weight-decay", float, 0.0, "Use this weight decay in AdamW."),
        ("batch-size", int, 16, "Compute this many items per device and step."),
        ("accumulation", int, 1, "Add up the gradients of this many steps before an update."),
        ("epochs", float, 2.0, "Train for this many passes over the rows."),
        ("token-loss", float, 0.0, "Add the loss of every candidate token with this weight."),
        ("embedding-epochs", int, 3, "Train embeddings for this many passes (--from-scratch)."),
        ("seed", int, 0, "Start random draws from this seed."),
        ("eval-steps", int, 1000, "Evaluate and save at intervals of this many steps."),
    ):
        group.add_argument(f"--{name}", type=kind, default=default, help=text)
    group.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        default="fp32",
        help="Compute in this precision; weights stay float32 while they are trained.",
    )


def run(arguments: argparse.Namespace) -> int:
    """Train; print figures to standard error, and the checkpoint's folder to standard output."""
    # here, not above: --help must not wait for torch
    from reward_train.rows import RowRules  # noqa: PLC0415
    from reward_train.scratch import Scratch, Shape  # noqa: PLC0415
    from reward_train.training import TrainOptions, train  # noqa: PLC0415

    given = vars(arguments)
    shape = given.pop("from_scratch")
    names = ("min_remaining", "pack", "chat_format", "max_tokens")
    rules = RowRules(*(given.pop(name) for name in names))
    scratch = Scratch(Shape.parse(shape), arguments.seed) if shape else None
    found = train(TrainOptions(**given, scratch=scratch, rules=rules), _say)
    if found is not None:
        for name, value in found.items():
            _say(f"{name}: {value:.4f}")
        print(arguments.output)
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
