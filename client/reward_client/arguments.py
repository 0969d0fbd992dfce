"""Command-line options of every command that talks to a server."""

import argparse
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, get_args

from reward_client.aio import AsyncRewardClient
from reward_client.client import RewardClient
from reward_client.connection import TLS, Connection
from reward_client.errors import InvalidInputError
from reward_client.options import Priority
from reward_contract import MODEL_NAME, PRIORITY_LEVELS
from reward_text import FORMATS, Format, Truncation, format_named

Client = TypeVar("Client", RewardClient, AsyncRewardClient)


@dataclass(frozen=True, slots=True)
class ClientArguments:
    """The arguments of a client, from the command line.

    Attributes:
        urls: one or several addresses.
        timeout_s: seconds for a call.
        truncation: how a text that is too long is cut.
        priority: priority of all calls; the server's default if None.
        model_version: the version to ask; the server's choice if None.
        connection: certificates and headers.
        chat_format: format of conversations; the model's own if None.
        model: name of the model in the server's repository.
    """

    urls: list[str]
    timeout_s: float
    truncation: Truncation
    priority: Priority | None
    model_version: int | None
    connection: Connection
    chat_format: Format | None = None
    model: str = MODEL_NAME

    def client(self, kind: type[Client]) -> Client:
        """A client of the class `kind`.

        Raises:
            InvalidInputError: a file cannot be read, or an address is invalid or given twice.
        """
        try:
            return kind(
                self.urls,
                timeout_s=self.timeout_s,
                truncation=self.truncation,
                priority=self.priority,
                model_version=self.model_version,
                connection=self.connection,
                chat_format=self.chat_format,
                model=self.model,
            )
        except (OSError, ValueError) as error:
            raise InvalidInputError(str(error)) from error


def add_connection(
    parser: argparse.ArgumentParser,
    *,
    groups: bool = True,
    chats: bool | None = None,
    priority: Priority | None = None,
    timeout: str = "60",
) -> None:
    """Add the options that say which server is asked, and how.

    Args:
        parser: the command's.
        groups: whether it scores candidates in groups, for which truncation can be chosen.
        chats: whether it takes conversations; the same as `groups` if None.
        priority: default priority of its calls; the server's default if None.
        timeout: the default timeout, as the help shows it.
    """
    group = parser.add_argument_group("server")
    group.add_argument(
        "--url",
        action="append",
        metavar="HOST:PORT",
        help="Ask the server at this gRPC address; repeat the option to ask several in turn. "
        "Default: localhost:8001.",
    )
    group.add_argument(
        "--timeout",
        type=seconds_argument,
        default=60.0,
        metavar="SECONDS",
        help=f"Give up on a call after this many seconds. Default: {timeout}.",
    )
    _add_model(group)
    if groups if chats is None else chats:
        _add_chat_format(group)
    else:
        parser.set_defaults(chat_format=None)
    group.add_argument(
        "--priority",
        choices=PRIORITY_LEVELS,
        default=priority,
        help="Have the server answer these calls before (interactive) or after (bulk) others."
        + ("" if priority else " Default: the priority that the server is configured with."),
    )
    if groups:
        group.add_argument(
            "--truncation",
            choices=get_args(Truncation),
            default="left",
            help="Cut each text that is too long on the left (left), or the context once for all "
            "candidates (shared_context): docs/truncation.md.",
        )
    else:
        parser.set_defaults(truncation="left")
    _add_security(group)


def _add_model(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--model",
        default=MODEL_NAME,
        metavar="NAME",
        help="Ask the model with this name in the server's repository.",
    )
    group.add_argument(
        "--model-version",
        type=int,
        metavar="N",
        help="Ask this version of the model. Default: the one that the server chooses.",
    )


def _add_chat_format(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--chat-format",
        type=format_argument,
        metavar="NAME|FILE",
        help=f"Render messages in this format: {', '.join(FORMATS)}, or a JSON file. "
        "Default: the one that the model names.",
    )


def _add_security(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--tls", action="store_true", help="Encrypt the connection. The --tls-* options imply it."
    )
    group.add_argument(
        "--tls-roots",
        type=Path,
        metavar="PEM",
        help="Trust servers whose certificate these authorities signed. Default: the public "
        "authorities.",
    )
    group.add_argument(
        "--tls-certificate",
        type=Path,
        metavar="PEM",
        help="Show this certificate to servers that ask for one.",
    )
    group.add_argument(
        "--tls-key", type=Path, metavar="PEM", help="Use this private key for --tls-certificate."
    )
    group.add_argument(
        "--header-env",
        action="append",
        default=[],
        metavar="NAME=VARIABLE",
        help="Send the header NAME with the value of the environment variable VARIABLE, which "
        "process lists do not show. Example: --header-env authorization=TOKEN.",
    )


def client_arguments(arguments: argparse.Namespace) -> ClientArguments:
    """The arguments of the client that the command line asks for.

    Raises:
        InvalidInputError: a certificate without its key, a header that gRPC refuses, or an
            environment variable that does not exist.
    """
    try:
        return ClientArguments(
            urls=arguments.url or ["localhost:8001"],
            timeout_s=arguments.timeout,
            truncation=arguments.truncation,
            priority=arguments.priority,
            model_version=arguments.model_version,
            connection=Connection(tls=_tls(arguments), metadata=_headers(arguments.header_env)),
            chat_format=arguments.chat_format,
            model=arguments.model,
        )
    except ValueError as error:
        raise InvalidInputError(str(error)) from error


def open_client(arguments: argparse.Namespace) -> RewardClient:
    """The client that the command line asks for.

    Raises:
        InvalidInputError: as in `client_arguments` and `ClientArguments.client`.
    """
    return client_arguments(arguments).client(RewardClient)


def _tls(arguments: argparse.Namespace) -> TLS | None:
    files = (arguments.tls_roots, arguments.tls_certificate, arguments.tls_key)
    return TLS(*files) if arguments.tls or any(files) else None


def _headers(pairs: list[str]) -> dict[str, str]:
    headers = {}
    for pair in pairs:
        name, _, variable = pair.partition("=")
        if variable not in os.environ:
            raise InvalidInputError(
                f"--header-env {pair}: there is no environment variable {variable!r}"
            )
        headers[name] = os.environ[variable]
    return headers


def format_argument(name: str) -> Format:
    """Parse an option's value: a format of conversations, by name or file.

    Raises:
        ArgumentTypeError: there is no such format, or the file does not hold one.
    """
    try:
        return format_named(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def seconds_argument(text: str) -> float:
    """Parse an option's value: seconds above 0.

    Raises:
        ArgumentTypeError: the value is not above 0 and finite.
    """
    value = float(text)
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"must be above 0 and finite, not {text}")
    return value


def share_argument(text: str) -> float:
    """Parse an option's value: a share or a probability, from 0 to 1.

    Raises:
        ArgumentTypeError: the value is not from 0 to 1.
    """
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, not {text}")
    return value
