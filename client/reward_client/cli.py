"""The command `gpt2-reward`.

A subcommand is a module `commands/NAME.py` of one of this project's packages. It has

    a docstring      whose first line says in `gpt2-reward --help` what the command does
    EXTRA            the extra that brings what it needs beyond the bare install, or None
    add_arguments    (parser) -> None
    run              (arguments) -> int, the exit code

and can be imported in a bare install: it imports what an extra brings only when it runs.
"""

import argparse
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from types import ModuleType

from reward_contract.errors import RewardError

PACKAGES = ("reward_client", "reward_export", "reward_gateway", "reward_serve", "reward_train")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code.

    Returns:
        0 if it did what was asked; 1 after an error, which is written to standard error in
        one line; 2 for wrong usage; 130 after Ctrl-C. A subcommand may have others.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    modules = command_modules()
    if not arguments or arguments[0] not in modules:
        parser = _top_parser(modules)
        parser.parse_args(arguments)  # answers --help and --version, refuses other words
        parser.print_help(sys.stderr)
        return 2
    name = arguments[0]
    try:
        return _run(name, importlib.import_module(modules[name]), arguments[1:])
    except RewardError as error:
        print(f"gpt2-reward {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # the reader of our output has gone; keep Python from complaining at exit as well
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def command_modules() -> dict[str, str]:
    """The name of each subcommand's module, by subcommand; none of them is imported."""
    found = {}
    for package in PACKAGES:
        spec = find_spec(f"{package}.commands")
        folders = spec.submodule_search_locations if spec else None
        for module in pkgutil.iter_modules(folders or []):
            found[module.name] = f"{package}.commands.{module.name}"
    return found


def command_parser(name: str, module: ModuleType) -> argparse.ArgumentParser:
    """The parser of a subcommand."""
    parser = argparse.ArgumentParser(
        prog=f"gpt2-reward {name}", description=module.__doc__, formatter_class=_Help
    )
    module.add_arguments(parser)
    return parser


class _Help(argparse.RawDescriptionHelpFormatter):
    """Shows the default of every option that has one, in one way."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text, default = action.help or "", action.default
        is_unset = default is None or default is False or default in ([], argparse.SUPPRESS)
        if is_unset or not action.option_strings or "Default:" in text:
            return text
        return f"{text} Default: %(default)s."


def _run(name: str, module: ModuleType, arguments: list[str]) -> int:
    try:
        return int(module.run(command_parser(name, module).parse_args(arguments)))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if module.EXTRA is None or package in PACKAGES:
            raise
        raise RewardError(
            f"needs the package '{package}'; install it with "
            f"pip install 'gpt2-reward[{module.EXTRA}]'"
        ) from error


def _top_parser(modules: dict[str, str]) -> argparse.ArgumentParser:
    width = max(map(len, modules))
    lines = [f"  {name:<{width}}  {_summary(module)}" for name, module in modules.items()]
    parser = argparse.ArgumentParser(
        prog="gpt2-reward",
        usage="gpt2-reward COMMAND [options]",
        description="Score candidate replies with a GPT-2 reward model served by Triton.",
        epilog="commands:\n" + "\n".join(lines) + "\n\nRun gpt2-reward COMMAND --help for more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('gpt2-reward')}")
    parser.add_argument("command", nargs="?", choices=list(modules), help=argparse.SUPPRESS)
    return parser


def _summary(module: str) -> str:
    """The first line of a module's docstring."""
    return (importlib.import_module(module).__doc__ or "").partition("\n")[0]
