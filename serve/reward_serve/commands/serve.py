"""Serve a model repository with the tritonserver of the PyPI wheel, without a container.

Options behind -- go to tritonserver as they are. Ctrl-C finishes requests in flight and
stops; a second one stops at once. Where a model's process dies, the server is started again.
"""

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from reward_serve.errors import ModelProcessError, SecurityError, ServerLogError
from reward_serve.security import Security
from reward_serve.server import ServerOptions, TritonServer

EXTRA = "serve"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `gpt2-reward serve` takes."""
    parser.add_argument(
        "--repository",
        type=Path,
        default=Path("model_repository"),
        metavar="FOLDER",
        help="Serve this model repository.",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="Listen on this address; the default is for this machine alone. Triton has no "
        "authentication: read docs/security.md before you open it to a network.",
    )
    for service, port in (("gRPC", 8001), ("HTTP", 8000), ("metrics", 8002)):
        parser.add_argument(
            f"--{service.lower()}-port",
            type=int,
            default=port,
            metavar="PORT",
            help=f"Serve {service} on this port; 0 takes a free one.",
        )
    parser.add_argument(
        "--ready-timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="Give up if the models are not loaded within this many seconds.",
    )
    parser.add_argument(
        "--poll",
        type=_whole_seconds,
        metavar="SECONDS",
        help="Look for new, withdrawn and changed versions every so many seconds, and exchange "
        "them without a failed call. Default: serve what is there at the start.",
    )
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="Show the server's log, which goes to a file in any case.",
    )
    add_security(parser)
    parser.add_argument(
        "triton_options", nargs="*", metavar="-- TRITON_OPTION", help="Options for tritonserver."
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    server = TritonServer(
        ServerOptions(
            arguments.repository,
            arguments.host,
            arguments.grpc_port,
            arguments.http_port,
            arguments.metrics_port,
            (
                *read_security(arguments).triton_options(),
                *polling(arguments.poll),
                *arguments.triton_options,
            ),
            ready_timeout_s=arguments.ready_timeout,
            end_with_parent=True,
            verbose=arguments.verbose,
        )
    )
    stopping = False

    def stop(_signum: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        server.interrupt()

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, stop)
    try:
        while True:
            try:
                with server:
                    _announce(server)
                    server.wait()
                break
            except ModelProcessError as error:
                _say(f"{error}\nstarting again")
            server = server.successor()
            if stopping:  # the signal came between the two
                server.interrupt()
    except ServerLogError as error:
        if not stopping:
            raise
        error.log.unlink()  # told to stop before it was ready: no failure, so no log to keep
    _say("stopped")
    return 0


def add_security(parser: argparse.ArgumentParser) -> None:
    """Add the options that say who may do what."""
    group = parser.add_argument_group("security")
    group.add_argument(
        "--tls-certificate", type=Path, metavar="PEM", help="Encrypt gRPC with this certificate."
    )
    group.add_argument(
        "--tls-key", type=Path, metavar="PEM", help="Use this private key of --tls-certificate."
    )
    group.add_argument(
        "--tls-client-roots",
        type=Path,
        metavar="PEM",
        help="Answer only clients with a certificate of these authorities.",
    )
    group.add_argument(
        "--control-key-env",
        metavar="VARIABLE",
        help="Open the control protocols (model repository, shared memory, trace, logging) to "
        "callers that send the key in this environment variable. Default: closed to all.",
    )


def read_security(arguments: argparse.Namespace) -> Security:
    """What the command line asks for.

    Raises:
        SecurityError: as `Security`, or the variable is not set.
    """
    variable = arguments.control_key_env
    if variable is not None and variable not in os.environ:
        raise SecurityError(f"there is no environment variable {variable!r}")
    return Security(
        arguments.tls_certificate,
        arguments.tls_key,
        arguments.tls_client_roots,
        None if variable is None else os.environ[variable],
    )


def _whole_seconds(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of seconds, 1 or more")
    return int(text)


def polling(every_s: int | None) -> tuple[str, ...]:
    """Options of tritonserver with which it follows its repository; none if None."""
    if every_s is None:
        return ()
    return ("--model-control-mode=poll", f"--repository-poll-secs={every_s}")


def _announce(server: TritonServer) -> None:
    _say(f"ready: serving {server.options.repository}")
    _say(f"  gRPC     {server.grpc_url}")
    _say(f"  HTTP     {server.http_url}")
    _say(f"  metrics  {server.metrics_url}")
    _say(f"  log      {server.log}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
