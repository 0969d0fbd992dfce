"""The command `gpt2-reward`.

Each subcommand lives in a module with two functions, `add_arguments(parser)` and
`run(arguments) -> int`, imported only when it is called: the bare install has the
client alone, and `export` or `serve` say which extra they miss.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

from reward_client.errors import RewardError


@dataclass(frozen=True, slots=True)
class Subcommand:
    """Where a subcommand lives, and which extra brings what it imports."""

    module: str
    help: str
    extra: str | None = None


SUBCOMMANDS = {
    "score": Subcommand("reward_client.commands.score", "rewards of texts, one a line"),
    "rank": Subcommand("reward_client.commands.rank", "candidates of a context, best first"),
    "info": Subcommand("reward_client.commands.info", "who answers at an address"),
    "http": Subcommand("reward_client.commands.http", "rewards for OpenRLHF over HTTP", "http"),
    "export": Subcommand("reward_export.command", "publish a checkpoint as ONNX", "export"),
    "rollback": Subcommand("reward_export.rollback", "take the newest version out of service"),
    "rows": Subcommand("reward_train.build", "dialogues as labelled rows", "train"),
    "train": Subcommand("reward_train.command", "fine-tune a checkpoint on rows", "train"),
    "evaluate": Subcommand(
        "reward_train.evaluate.command", "how often the best candidate is chosen", "evaluate"
    ),
    "serve": Subcommand("reward_serve.command", "run tritonserver on the repository", "serve"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code.

    Returns:
        0 when it did what was asked; 1 after an error, which stands on standard error
        in one line; 2 for wrong usage; 130 after Ctrl-C.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    if not arguments or arguments[0] not in SUBCOMMANDS:
        _top_parser().parse_args(arguments)  # answers --help and --version, refuses other words
        _top_parser().print_help(sys.stderr)
        return 2
    name = arguments[0]
    try:
        return _run(name, arguments[1:])
    except RewardError as error:
        print(f"gpt2-reward {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # whoever read our output has gone; keep Python from complaining at exit as well
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(name: str, arguments: list[str]) -> int:
    subcommand = SUBCOMMANDS[name]
    try:
        module = importlib.import_module(subcommand.module)
        parser = argparse.ArgumentParser(prog=f"gpt2-reward {name}", description=module.__doc__)
        module.add_arguments(parser)
        return int(module.run(parser.parse_args(arguments)))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if subcommand.extra is None or package.startswith("reward_"):
            raise
        raise RewardError(
            f"needs the package '{package}'; install it with "
            f"pip install 'gpt2-reward[{subcommand.extra}]'"
        ) from error


def _top_parser() -> argparse.ArgumentParser:
    width = max(map(len, SUBCOMMANDS))
    lines = [f"  {name:<{width}}  {command.help}" for name, command in SUBCOMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog="gpt2-reward",
        usage="gpt2-reward COMMAND [options]",
        description="Score candidate replies with a GPT-2 reward model served by Triton.",
        epilog="commands:\n" + "\n".join(lines) + "\n\ngpt2-reward COMMAND --help tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('gpt2-reward')}")
    parser.add_argument("command", nargs="?", choices=list(SUBCOMMANDS), help=argparse.SUPPRESS)
    return parser
