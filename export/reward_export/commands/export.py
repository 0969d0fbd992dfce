"""Publish a GPT-2 reward checkpoint as ONNX, after comparing it with PyTorch."""

import argparse
import os
import sys
from pathlib import Path

from reward_contract import MODEL_NAME

EXTRA = "export"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `gpt2-reward export`."""
    from reward_export.precision import PRECISIONS, PROVIDERS  # noqa: PLC0415  # an extra

    attentions = sorted({form.name for one in PRECISIONS.values() for form in one.forms})
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="The checkpoint: a hub id or a folder."
    )
    parser.add_argument(
        "--repository",
        type=Path,
        default=Path("model_repository"),
        metavar="FOLDER",
        help="Publish into this model repository.",
    )
    parser.add_argument(
        "--name",
        default=MODEL_NAME,
        help="Publish as the model of this name, which clients ask for; a server loads all models "
        "of its repository.",
    )
    parser.add_argument(
        "--revision", help="Take this branch, tag or commit on the hub. Default: its main branch."
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="Compute in this precision: fp32 for exact rewards, int8 for CPUs, fp16 for GPUs.",
    )
    parser.add_argument(
        "--version",
        type=int,
        metavar="N",
        help="Publish as this version. Default: the next free number.",
    )
    parser.add_argument(
        "--device",
        choices=PROVIDERS,
        help="Build the graph for this device. Default: the precision's own.",
    )
    parser.add_argument(
        "--attention",
        choices=attentions,
        help="Compute attention in this form. Default: padded on GPUs, looped on CPUs.",
    )
    parser.add_argument(
        "--format",
        dest="chat_format",
        metavar="NAME|FILE",
        help="Have clients render conversations in this format: lines, chai, pygmalion, verbatim, "
        "or a JSON file. Default: what the checkpoint's reward.json says; chai for ChaiML's.",
    )
    parser.add_argument(
        "--max-tokens",
        type=int,
        metavar="N",
        help="Have clients send the last N tokens. Default: what reward.json says, or 256.",
    )


def run(arguments: argparse.Namespace) -> int:
    """Export; print the measurements to standard error, the version's path to standard output."""
    # from 1.32 on, ONNX Runtime sends usage data to its makers unless told not to
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    # here, not above: --help must not wait for torch
    from reward_export.batches import GROUP  # noqa: PLC0415
    from reward_export.export import ExportOptions, export  # noqa: PLC0415

    published = export(ExportOptions(**vars(arguments)), _say)
    parity = published.parity
    _say(
        f"{parity.n_rows} rows of up to {parity.longest_row} tokens: rewards differ from "
        f"PyTorch's by at most {parity.max_difference:.2g} (tolerance {parity.tolerance:.2g}), "
        f"rank correlation {parity.spearman:.4f}, same best of {GROUP} in "
        f"{parity.best_agreement:.0%} of groups"
    )
    print(published.path)
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
