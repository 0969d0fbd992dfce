"""Arguments of every command that talks to a server."""

import argparse
import math

from reward_client.client import RewardClient


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Add `--url`, `--timeout` and `--model-version`."""
    parser.add_argument("--url", default="localhost:8001", help="gRPC address; %(default)s")
    parser.add_argument(
        "--timeout", type=_seconds, default=60.0, metavar="SECONDS", help="for a call; %(default)s"
    )
    parser.add_argument(
        "--model-version", type=int, metavar="N", help="default: the server's choice"
    )


def open_client(arguments: argparse.Namespace) -> RewardClient:
    """The client that the arguments ask for."""
    return RewardClient(
        arguments.url, timeout_s=arguments.timeout, model_version=arguments.model_version
    )


def _seconds(text: str) -> float:
    value = float(text)
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"must be above 0 and finite, not {text}")
    return value
