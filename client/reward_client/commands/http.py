"""Answer OpenRLHF's remote reward requests over HTTP, through the served model."""

import argparse
from dataclasses import replace

import uvicorn

from reward_client.aio import AsyncRewardClient
from reward_client.commands.connection import add_connection, client_arguments
from reward_client.connection import patient
from reward_client.rl.http import create_app


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `gpt2-reward http` takes."""
    parser.add_argument("--host", default="127.0.0.1", help="to listen on; %(default)s")
    parser.add_argument("--port", type=int, default=5000, help="to listen on; %(default)s")
    add_connection(parser, groups=False, priority="bulk")


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    given = client_arguments(arguments)
    given = replace(given, connection=patient(given.connection))  # trainers come through a restart

    def make_client() -> AsyncRewardClient:
        return given.client(AsyncRewardClient)

    app = create_app(make_client, timeout_s=given.timeout_s)
    uvicorn.run(app, host=arguments.host, port=arguments.port)
    return 0
