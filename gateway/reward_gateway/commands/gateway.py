"""Serve over HTTP: reranking, best of N in front of a chat server, and a page to try it.

Reranking speaks the protocols of Cohere, Jina, TEI and vLLM; /get_reward is OpenRLHF's. With
--upstream, /v1/chat/completions and /v1/completions draw several candidates from that server and
answer with the best. The page at / shows rankings, and which part of a conversation the model
read.
"""

import argparse
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import get_args

from reward_client.aio import AsyncRewardClient
from reward_client.arguments import (
    add_connection,
    client_arguments,
    seconds_argument,
    share_argument,
)
from reward_client.connection import patient
from reward_client.errors import InvalidInputError
from reward_gateway.settings import (
    MAX_N,
    SAMPLING,
    Choosing,
    Drawing,
    OnRewardFailure,
    Settings,
)

EXTRA = "gateway"
USUAL = Settings()
DRAINING_S = 30  # for requests in flight when told to stop


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `gpt2-reward gateway`."""
    parser.add_argument("--host", default="127.0.0.1", help="Listen on this address.")
    parser.add_argument("--port", type=int, default=5000, help="Listen on this port.")
    parser.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="Log requests in this form."
    )
    parser.add_argument(
        "--patient",
        action="store_true",
        help="Wait up to --timeout for a reward server that is down, which suits trainers. "
        "Default: fail after a few attempts, which suits chats.",
    )
    _add_limits(parser.add_argument_group("callers"))
    _add_generator(parser.add_argument_group("best of N"))
    add_connection(parser)


def _add_limits(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--api-keys",
        type=Path,
        metavar="FILE",
        help="Require one of the keys in this file, one per line. Default: one of those in the "
        "environment variable GPT2_REWARD_API_KEYS, separated by commas, or none if it is empty.",
    )
    group.add_argument(
        "--max-requests",
        type=int,
        default=USUAL.max_requests,
        metavar="N",
        help="Answer 429 to requests beyond this many at the same time.",
    )
    group.add_argument(
        "--max-body-bytes",
        type=int,
        default=USUAL.max_body_bytes,
        metavar="BYTES",
        help="Answer 413 to requests with a body larger than this.",
    )
    group.add_argument(
        "--cors-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="Let web pages of this origin send requests, such as https://chat.example. May be "
        "given several times.",
    )


def _add_generator(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--upstream",
        metavar="URL",
        help="Draw candidates from the OpenAI-compatible server at this base URL, such as "
        "http://generator:8000/v1.",
    )
    group.add_argument(
        "--upstream-key-env",
        metavar="VARIABLE",
        help="Send the --upstream server the key in this environment variable. Default: pass on "
        "callers' own keys, unless this gateway requires keys itself.",
    )
    group.add_argument(
        "--n",
        type=_number,
        default=USUAL.choosing.n,
        metavar="N",
        help=f"Draw this many candidates per request, from 1 to {MAX_N}.",
    )
    group.add_argument(
        "--drawing",
        choices=get_args(Drawing),
        default=USUAL.choosing.drawing,
        help="Draw candidates with the server's own parameter n (n), with parallel requests "
        "(parallel), or with n and then, if it gives fewer, with requests (auto).",
    )
    group.add_argument(
        "--sampling",
        choices=SAMPLING,
        help="Sample with these parameters unless a request has its own: chai has those of the "
        "reward model's card.",
    )
    group.add_argument(
        "--min-probability",
        type=share_argument,
        metavar="P",
        help="Draw a second time if no candidate's probability of acceptance reaches this.",
    )
    group.add_argument(
        "--time-budget",
        type=seconds_argument,
        metavar="SECONDS",
        help="Draw candidates with parallel requests, and rank those that arrive within this time.",
    )
    group.add_argument(
        "--on-reward-failure",
        choices=get_args(OnRewardFailure),
        default=USUAL.choosing.on_reward_failure,
        help="If no reward comes, answer with the first candidate, marked and counted (first), "
        "or with an error (error).",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    import uvicorn  # noqa: PLC0415  # an extra

    from reward_gateway.app import create_app  # noqa: PLC0415  # the same
    from reward_gateway.logs import set_up  # noqa: PLC0415  # the same

    set_up(arguments.log_format)
    settings, given = _settings(arguments), client_arguments(arguments)
    if arguments.patient:
        given = replace(given, connection=patient(given.connection))

    def make_client() -> AsyncRewardClient:
        return given.client(AsyncRewardClient)

    if arguments.host not in ("127.0.0.1", "localhost", "::1") and not settings.api_keys:
        logging.getLogger("reward_gateway").warning(
            "anyone who can reach %s:%d may send requests; require keys with --api-keys",
            arguments.host,
            arguments.port,
        )
    uvicorn.run(
        create_app(make_client, settings),
        host=arguments.host,
        port=arguments.port,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=DRAINING_S,
    )
    return 0


def _settings(arguments: argparse.Namespace) -> Settings:
    choosing = Choosing(
        n=arguments.n,
        drawing=arguments.drawing,
        sampling=SAMPLING[arguments.sampling] if arguments.sampling else {},
        min_probability=arguments.min_probability,
        time_budget_s=arguments.time_budget,
        on_reward_failure=arguments.on_reward_failure,
    )
    return Settings(
        model=arguments.model,
        upstream=arguments.upstream,
        upstream_key=_variable(arguments.upstream_key_env),
        choosing=choosing,
        timeout_s=arguments.timeout,
        api_keys=_keys(arguments.api_keys),
        max_body_bytes=arguments.max_body_bytes,
        max_requests=arguments.max_requests,
        cors_origins=tuple(arguments.cors_origin),
    )


def _number(text: str) -> int:
    n = int(text)
    if not 1 <= n <= MAX_N:
        raise argparse.ArgumentTypeError(f"must be from 1 to {MAX_N}, not {text}")
    return n


def _variable(name: str | None) -> str | None:
    if name is not None and name not in os.environ:
        raise InvalidInputError(f"--upstream-key-env: there is no environment variable {name!r}")
    return None if name is None else os.environ[name]


def _keys(file: Path | None) -> frozenset[str]:
    if file is None:
        found = os.environ.get("GPT2_REWARD_API_KEYS", "").split(",")
    else:
        try:
            found = file.read_text("utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"--api-keys: {error}") from error
    keys = frozenset(filter(None, map(str.strip, found)))
    if file is not None and not keys:
        raise InvalidInputError(f"--api-keys: there is no key in {file}")
    return keys
