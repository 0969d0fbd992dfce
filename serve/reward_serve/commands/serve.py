"""Serve a model repository with the tritonserver of the PyPI wheel, without a container.

Options after -- are passed to tritonserver unchanged. Ctrl-C finishes requests in flight and stops;
a second Ctrl-C stops at once. Versions whose files are not as they were exported are not served.
The server scores golden rows at intervals: if it dies, hangs or answers wrongly, it is restarted,
and the health port says that it is not ready.
"""

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from reward_serve.errors import PortError, SecurityError
from reward_serve.health import N_RECENT, Health, HealthPort
from reward_serve.heartbeat import Pulse
from reward_serve.log import Tell
from reward_serve.ports import outside_address, own_address
from reward_serve.security import Security
from reward_serve.server import ServerOptions, TritonServer
from reward_serve.structured import as_json
from reward_serve.supervisor import Supervisor

EXTRA = "serve"
USUAL = Pulse()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `gpt2-reward serve`."""
    parser.add_argument(
        "--repository",
        type=Path,
        default=Path("model_repository"),
        metavar="FOLDER",
        help="Serve this model repository.",
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="Serve the model of this name; may be given several times. Default: all models that "
        "the repository has.",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="Listen on this address; the default accepts only this machine. Triton has no "
        "authentication: read docs/security.md before you open it to a network.",
    )
    for service, port in (("gRPC", 8001), ("HTTP", 8000), ("metrics", 8002), ("health", 8003)):
        parser.add_argument(
            f"--{service.lower()}-port",
            type=int,
            default=port,
            metavar="PORT",
            help=f"Serve {service} on this port; 0 takes a free one.",
        )
    _add_heartbeat(parser)
    parser.add_argument(
        "--log-format",
        choices=("text", "json"),
        default="text",
        help="Write this command's own lines, and with --verbose the server's, in this format.",
    )
    _add_loading(parser)
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="Show the server's log, which goes to a file in any case.",
    )
    add_security(parser)
    parser.add_argument(
        "triton_options", nargs="*", metavar="-- TRITON_OPTION", help="Options for tritonserver."
    )


def _add_loading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ready-timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="Give up if the models are not loaded within this many seconds.",
    )
    parser.add_argument(
        "--load-timeout",
        type=_seconds,
        default=300.0,
        metavar="SECONDS",
        help="With --poll, give up a new version that is not loaded within this many seconds; the "
        "previous version continues to serve.",
    )
    parser.add_argument(
        "--poll",
        type=_whole_seconds,
        metavar="SECONDS",
        help="Look for new, withdrawn and changed versions at this interval, and switch to them "
        "without a failed call. Default: serve what is there at the start.",
    )


def _add_heartbeat(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--heartbeat",
        type=_seconds,
        default=USUAL.every_s,
        metavar="SECONDS",
        help="Have the server score golden rows at this interval (a heartbeat), and restart it "
        f"if {USUAL.misses} of the last {N_RECENT} failed; 0 turns heartbeats off.",
    )
    parser.add_argument(
        "--heartbeat-timeout",
        type=_seconds,
        default=USUAL.timeout_s,
        metavar="SECONDS",
        help="Count a heartbeat as failed after this many seconds. It may have to wait for an "
        "execution: allow more than the longest one takes.",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    tell = _say if arguments.log_format == "text" else _say_json
    security, health = read_security(arguments), Health()
    _warn_of_open_ports(arguments.host, security, tell)
    options = ServerOptions(
        arguments.repository,
        arguments.host,
        arguments.grpc_port,
        arguments.http_port,
        arguments.metrics_port,
        (*polling(arguments.poll), *arguments.triton_options),
        security=security,
        ready_timeout_s=arguments.ready_timeout,
        load_timeout_s=arguments.load_timeout,
        end_with_parent=True,
        verbose=arguments.verbose,
        json_log=arguments.log_format == "json",
        models=tuple(arguments.model),
    )
    supervisor = Supervisor(
        TritonServer(options, tell=tell),
        health,
        Pulse(arguments.heartbeat, arguments.heartbeat_timeout),
        tell,
    )

    def stop(_signum: int, _frame: FrameType | None) -> None:
        health.mark_away("stopping")
        supervisor.stop()

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, stop)
    with _health_port(health, arguments.host, arguments.health_port) as port:
        tell(f"health: {port.url}/ready, /live and /metrics")
        supervisor.run()
    tell("stopped")
    return 0


def _health_port(health: Health, host: str, port: int) -> HealthPort:
    try:
        return HealthPort(health, own_address(host), port)
    except (OSError, OverflowError) as error:
        raise PortError(
            f"cannot listen on {host}:{port} for --health-port: {error}; choose another port",
            port=port,
        ) from error


def _warn_of_open_ports(host: str, security: Security, tell: Tell) -> None:
    if own_address(host).startswith("127."):
        return
    outside = outside_address() if host == "0.0.0.0" else host  # noqa: S104
    if outside is not None:
        tell(f"other machines reach this one as {outside}")
    if security.client_roots is None:
        tell(
            f"warning: anyone who reaches {host} can have texts scored; without TLS, others' texts "
            "can be read on the network; docs/security.md says how to prevent both"
        )


def add_security(parser: argparse.ArgumentParser) -> None:
    """Add the options that say who may do what."""
    group = parser.add_argument_group("security")
    group.add_argument(
        "--tls-certificate", type=Path, metavar="PEM", help="Encrypt gRPC with this certificate."
    )
    group.add_argument(
        "--tls-key", type=Path, metavar="PEM", help="Use this private key for --tls-certificate."
    )
    group.add_argument(
        "--tls-client-roots",
        type=Path,
        metavar="PEM",
        help="Answer only clients with a certificate from these authorities.",
    )
    group.add_argument(
        "--http-inference",
        action="store_true",
        help="Score over HTTP as well; otherwise HTTP only answers health checks. Some request "
        "bodies crash Triton 2.51 there: read docs/security.md first.",
    )
    group.add_argument(
        "--control-key-env",
        metavar="VARIABLE",
        help="Open the control protocols (model repository, shared memory, trace, logging) to "
        "callers that send the key in this environment variable. Default: closed to all.",
    )


def read_security(arguments: argparse.Namespace) -> Security:
    """The security that the command line asks for.

    Raises:
        SecurityError: as for `Security`, or the variable is not set.
    """
    variable = arguments.control_key_env
    if variable is not None and variable not in os.environ:
        raise SecurityError(f"there is no environment variable {variable!r}")
    return Security(
        arguments.tls_certificate,
        arguments.tls_key,
        arguments.tls_client_roots,
        None if variable is None else os.environ[variable],
        http_inference=arguments.http_inference,
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e6:  # noqa: PLR2004
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, 0 or more")
    return seconds


def _whole_seconds(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of seconds, 1 or more")
    return int(text)


def polling(every_s: int | None) -> tuple[str, ...]:
    """Options that make tritonserver follow its repository; none if `every_s` is None."""
    if every_s is None:
        return ()
    return ("--model-control-mode=poll", f"--repository-poll-secs={every_s}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _say_json(line: str) -> None:
    _say(as_json(line))
