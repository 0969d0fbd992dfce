"""Take the newest version of a model out of service, so that the one before it answers.

A server that polls the repository follows by itself, without a failed call; other servers
follow at their next start.
"""

import argparse
import sys
from pathlib import Path

from reward_contract import MODEL_NAME
from reward_export.repository import ModelFolder

EXTRA = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `gpt2-reward rollback`."""
    parser.add_argument(
        "--repository",
        type=Path,
        default=Path("model_repository"),
        metavar="FOLDER",
        help="Withdraw from this model repository.",
    )
    parser.add_argument(
        "--name", default=MODEL_NAME, help="Withdraw a version of the model of this name."
    )


def run(arguments: argparse.Namespace) -> int:
    """Withdraw, say how to undo it, and print the path of the version that is the newest now."""
    withdrawn, serving = ModelFolder(arguments.repository, arguments.name).withdraw()
    number = withdrawn.name.rpartition("-")[2]
    print(
        f"version {number} is withdrawn, {serving.name} is the newest; "
        f"to undo it: mv {withdrawn} {withdrawn.with_name(number)}",
        file=sys.stderr,
    )
    print(serving)
    return 0
