"""Have a running server score the golden rows of its models, and compare with PyTorch's rewards.

This shows whether the server (its processor, GPU, ONNX Runtime and files) computes the model that
was exported. With --repository, the hashes of all versions' files are compared as well. The exit
code is 0 if everything agrees, else 1.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from reward_contract import MODEL_NAME

EXTRA = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `gpt2-reward verify`."""
    parser.add_argument(
        "--url",
        metavar="HOST:PORT",
        help="Verify this server. Default: localhost:8001, or none if --repository is given.",
    )
    parser.add_argument(
        "--repository",
        type=Path,
        metavar="FOLDER",
        help="Compare the files of this repository with their manifests. Without --url, no server "
        "is verified.",
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="Verify the model of this name; may be given several times. Default: all that were "
        f"exported into --repository, or {MODEL_NAME}.",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="Give up on a request that takes longer than this many seconds.",
    )
    group = parser.add_argument_group("TLS")
    group.add_argument("--tls-roots", type=Path, metavar="PEM", help="Trust these authorities.")
    group.add_argument(
        "--tls-certificate",
        type=Path,
        metavar="PEM",
        help="Show this certificate to servers that ask for one.",
    )
    group.add_argument(
        "--tls-key", type=Path, metavar="PEM", help="Use this private key for --tls-certificate."
    )


def run(arguments: argparse.Namespace) -> int:
    """Print a table for each model; differences go to standard error."""
    # here, not above: --help must not wait for gRPC
    from reward_serve.errors import VerifyError  # noqa: PLC0415
    from reward_serve.verify import exported  # noqa: PLC0415

    repository = arguments.repository
    url = arguments.url or (None if repository else "localhost:8001")
    names = arguments.model or (exported(repository) if repository else []) or [MODEL_NAME]
    problems: list[str] = []
    for name in names:
        if url is not None and len(names) > 1:
            print(f"{name}:")
        try:
            problems.extend(_problems(url, name, arguments))
        except VerifyError as error:  # the other models are verified all the same
            problems.append(str(error))
    for problem in problems:
        print(f"gpt2-reward verify: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _problems(url: str | None, model: str, arguments: argparse.Namespace) -> Iterator[str]:
    """What is wrong with a model: with its files, and with the rewards of a server."""
    from reward_serve.verify import damaged  # noqa: PLC0415  # as above

    if arguments.repository is not None:
        for version, what in damaged(arguments.repository, model).items():
            yield f"{model} version {version}: {what}"
    if url is not None:
        yield from _asked(url, model, arguments)


def _asked(url: str, model: str, arguments: argparse.Namespace) -> Iterator[str]:
    """Print the golden rows of a model, and say what is wrong with them."""
    from reward_serve.verify import Target, verify  # noqa: PLC0415  # as above

    given = arguments
    certificates = (given.tls_roots, given.tls_certificate, given.tls_key)
    print("version  tokens      reward   PyTorch's  difference   tolerance")
    for row in verify(Target(url, given.timeout, *certificates, model), given.repository):
        difference = abs(row.reward - row.wanted)
        print(
            f"{row.version:>7}  {row.tokens:>6}  {row.reward:>+10.5f}  {row.wanted:>+10.5f}  "
            f"{difference:>10.2e}  {row.tolerance:>10.2e}{'' if row.is_right else '  WRONG'}"
        )
        if not row.is_right:
            yield f"{model} version {row.version}: a row of {row.tokens} tokens is wrong"
