"""Answer OpenRLHF's remote reward requests over HTTP, with the rewards of a served model."""

import argparse
from dataclasses import replace

from reward_client.aio import AsyncRewardClient
from reward_client.arguments import add_connection, client_arguments
from reward_client.connection import patient

EXTRA = "http"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `gpt2-reward http` takes."""
    parser.add_argument("--host", default="127.0.0.1", help="Listen on this address.")
    parser.add_argument("--port", type=int, default=5000, help="Listen on this port.")
    add_connection(parser, groups=False, priority="bulk")


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    import uvicorn  # noqa: PLC0415  # an extra

    from reward_client.rl.http import create_app  # noqa: PLC0415  # the same

    given = client_arguments(arguments)
    given = replace(given, connection=patient(given.connection))  # trainers come through a restart

    def make_client() -> AsyncRewardClient:
        return given.client(AsyncRewardClient)

    app = create_app(make_client, timeout_s=given.timeout_s)
    uvicorn.run(app, host=arguments.host, port=arguments.port)
    return 0
