"""Ask a running server for the golden rows of its versions, and compare with PyTorch's rewards.

It shows whether what serves (its processor, GPU, ONNX Runtime and files) computes the model that
was exported. With --repository, the hashes of all versions' files are compared as well. The exit
code is 0 if all agrees, else 1.
"""

import argparse
import sys
from pathlib import Path

EXTRA = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `gpt2-reward verify` takes."""
    parser.add_argument(
        "--url", metavar="HOST:PORT", help="Ask this server; default: localhost:8001, or none."
    )
    parser.add_argument(
        "--repository",
        type=Path,
        metavar="FOLDER",
        help="Compare the files of this repository with their manifests. Without --url, no server "
        "is asked.",
    )
    parser.add_argument(
        "--timeout", type=float, default=30.0, metavar="SECONDS", help="Give each request so long."
    )
    group = parser.add_argument_group("TLS")
    group.add_argument("--tls-roots", type=Path, metavar="PEM", help="Trust these authorities.")
    group.add_argument("--tls-certificate", type=Path, metavar="PEM", help="Show this certificate.")
    group.add_argument("--tls-key", type=Path, metavar="PEM", help="The certificate's key.")


def run(arguments: argparse.Namespace) -> int:
    """Print a table; what differs goes to standard error."""
    # here, not above: --help must not wait for gRPC
    from reward_serve.verify import Target, damaged, verify  # noqa: PLC0415

    problems = []
    if arguments.repository is not None:
        problems += [f"version {v}: {what}" for v, what in damaged(arguments.repository).items()]
    url = arguments.url or (None if arguments.repository else "localhost:8001")
    if url is not None:
        target = Target(
            url,
            arguments.timeout,
            arguments.tls_roots,
            arguments.tls_certificate,
            arguments.tls_key,
        )
        print("version  tokens      reward   PyTorch's  difference   tolerance")
        for row in verify(target, arguments.repository):
            difference = abs(row.reward - row.wanted)
            print(
                f"{row.version:>7}  {row.tokens:>6}  {row.reward:>+10.5f}  {row.wanted:>+10.5f}  "
                f"{difference:>10.2e}  {row.tolerance:>10.2e}{'' if row.is_right else '  WRONG'}"
            )
            if not row.is_right:
                problems.append(f"version {row.version}: a row of {row.tokens} tokens is wrong")
    for problem in problems:
        print(f"gpt2-reward verify: {problem}", file=sys.stderr)
    return 1 if problems else 0
