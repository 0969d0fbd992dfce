"""Ask a server who it is and whether its model keeps the contract.

The exit code is 1 if the model does not, or if the server is not ready.
"""

import argparse
import json
from dataclasses import asdict

from reward_client.arguments import add_connection, open_client
from reward_client.results import ModelInfo
from reward_text import Calibration

EXTRA = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `gpt2-reward info`."""
    parser.add_argument("--json", action="store_true", help="Print a JSON object, for programs.")
    add_connection(parser, groups=False)


def run(arguments: argparse.Namespace) -> int:
    """Print what the server says about itself and its model."""
    with open_client(arguments) as client:
        info = client.server_info()
    if arguments.json:
        print(json.dumps(asdict(info)))
    else:
        versions = ", ".join(map(str, info.model_versions))
        print(f"{info.url}: {info.name} {info.version}")
        print(
            f"model {info.model}, version {versions}, up to {info.max_batch_rows} rows per request"
        )
        print("\n".join(map(_described, info.models)))
    return 0


def _described(model: ModelInfo) -> str:
    usage = model.usage
    form = "unknown" if usage.chat_format is None else usage.chat_format.name
    calibration = usage.calibration
    fitted = f"sigmoid({calibration.scale:.4g} * reward {calibration.bias:+.4g})"
    return (
        f"version {model.version}: precision {model.precision or 'unknown'}, {usage.max_tokens} "
        f"tokens, format of conversations {form}, "
        f"probability {fitted if calibration != Calibration() else 'sigmoid(reward)'}\n"
        f"  from {model.source or 'unknown'}, revision {model.revision or 'unknown'}\n"
        f"  sha256 {model.identity or 'unknown'}"
    )
