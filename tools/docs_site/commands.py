"""The command line as a page, generated from its parsers."""

import argparse
import functools
import importlib
import re
import textwrap
from collections.abc import Iterator

from reward_client.cli import command_modules, command_parser

PLAIN = re.compile(r"([\\`*_\[\]<>|])")  # what Markdown would read as something else
PAGE = re.compile(r"docs/([a-z-]+\.md)")


def markdown() -> str:
    """A section for each command, in the order of `gpt2-reward --help`."""
    return "\n\n".join("\n".join(_command(name, path)) for name, path in command_modules().items())


def _command(name: str, path: str) -> Iterator[str]:
    module = importlib.import_module(path)
    parser = command_parser(name, module)
    help_of = parser._get_formatter()  # noqa: SLF001  # argparse has no other way to ask
    # equally wide on every machine, whatever its terminal
    parser.formatter_class = functools.partial(argparse.HelpFormatter, width=76)
    yield f"## gpt2-reward {name} {{ #{name} }}\n"
    if module.EXTRA:
        yield f"Needs `pip install 'gpt2-reward[{module.EXTRA}]'`.\n"
    yield f"{_text(parser.description or '')}\n"
    yield f"```text\n{parser.format_usage()}```\n"
    for group in parser._action_groups:  # noqa: SLF001  # as above
        yield from _group(group, help_of)


def _group(group: argparse._ArgumentGroup, help_of: argparse.HelpFormatter) -> Iterator[str]:
    actions = [
        action
        for action in group._group_actions  # noqa: SLF001  # as above
        if not isinstance(action, argparse._HelpAction)  # noqa: SLF001  # every command has it
    ]
    if not actions:
        return
    yield f"**{(group.title or '').capitalize()}**\n"
    if group.description:
        yield f"{_text(group.description)}\n"
    for action in actions:
        written = help_of._format_action_invocation(action)  # noqa: SLF001  # as above
        yield f"`{written}`\n:   {_text(help_of._expand_help(action))}\n"  # noqa: SLF001


def _text(text: str) -> str:
    """Help as Markdown: special characters escaped, pages as links."""
    escaped = PLAIN.sub(r"\\\1", textwrap.dedent(text))
    return PAGE.sub(r"[docs/\1](\1)", escaped)
