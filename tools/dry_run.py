"""Reports what the CUDA provider does with the graphs for GPUs, without a GPU.

    python tools/dry_run.py                                  # every form, two layers
    python tools/dry_run.py --graph model_repository/gpt2_reward/1/model.onnx

The wheels are those that `make cuda-dry-run` puts into .venv/onnxruntimes-gpu.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx_ir as ir
from cuda_dry_run.drive import dry_run
from cuda_dry_run.report import LIMITS, describe

from reward_bench.provider.cuda import cuda_options
from reward_bench.provider.grid import chat
from reward_export.checkpoint import load
from reward_export.precision import PRECISIONS
from reward_export.random_checkpoint import random_checkpoint

RUNTIMES = Path(sys.prefix) / "onnxruntimes-gpu"


def graphs(folder: Path) -> list[Path]:
    """A graph of two layers for each form that has CUDA as its device."""
    source = random_checkpoint(folder / "checkpoint", n_layer=2, n_head=2, n_embd=128)
    checkpoint, found = load(str(source)), []
    for precision in PRECISIONS.values():
        for form in precision.forms:
            if form.device == "cuda":
                found.append(folder / f"{precision.name}-{form.name}.onnx")
                ir.save(precision.build(checkpoint, form), found[-1])
    return found


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graph", type=Path, help="a graph of your own, instead of every form")
    parser.add_argument(
        "--capability", type=int, default=90, help="compute capability x 10; default: %(default)s"
    )
    parser.add_argument(
        "--batch", default="16x8x160x48", help="contexts x candidates x tokens x tokens"
    )
    given = parser.parse_args()
    ids = chat(np.random.default_rng(0), *map(int, given.batch.split("x"))).astype(np.int32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for runtime in sorted(path for path in RUNTIMES.iterdir() if path.name[0].isdigit()):
            chosen = [given.graph.resolve()] if given.graph else graphs(folder)
            for session in dry_run(
                runtime,
                chosen,
                {given.batch: ids},
                folder,
                capabilities=[given.capability],
                options=cuda_options(),
            ):
                print(*describe(session), sep="\n")
            print(f"  peak device memory: {session.most_memory / 2**20:.0f} MiB\n")
    print(LIMITS)


if __name__ == "__main__":
    main()
