"""Publish a GPT-2 reward checkpoint as ONNX, after comparing it with PyTorch."""

import argparse
import os
import sys
from pathlib import Path

PRECISIONS = ("fp32", "fp16", "int8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `gpt2-reward export` takes."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="hub id or folder")
    parser.add_argument(
        "--repository", type=Path, default=Path("model_repository"), help="default: %(default)s"
    )
    parser.add_argument("--revision", help="branch, tag or commit on the hub")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="fp16 for GPUs, int8 for CPUs; default: %(default)s",
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), help="that will serve; default: the precision's own"
    )
    parser.add_argument(
        "--attention",
        choices=("looped", "padded", "varlen"),
        help="of the graph; default: padded on GPUs, looped on CPUs",
    )
    parser.add_argument("--version", type=int, help="default: the next free number")
    parser.add_argument("--overwrite", action="store_true", help="replace the version if it exists")


def run(arguments: argparse.Namespace) -> int:
    """Export, and say on standard error what was measured; the version's path on output."""
    # ONNX Runtime reports its use to its makers from 1.32 on, unless told otherwise
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
