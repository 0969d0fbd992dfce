"""Subcommands follow one pattern, and their help can be read by itself."""

import argparse
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from reward_client.cli import command_modules, command_parser, main

COMMANDS = command_modules()


def options() -> Iterator[tuple[str, argparse.Action]]:
    for name, module in COMMANDS.items():
        try:
            parser = command_parser(name, importlib.import_module(module))
        except ModuleNotFoundError:  # a bare install of the client: the full one has them all
            continue
        for action in parser._actions:
            if not isinstance(action, argparse._HelpAction):
                yield name, action


def test_all_commands_are_found() -> None:
    names = "score rank info gateway export rollback serve verify rows train evaluate"
    assert sorted(COMMANDS) == sorted(names.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_listed_by_a_sentence_that_begins_with_a_verb(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    (line,) = re.findall(rf"^  {name} +(.*)$", capsys.readouterr().out, re.MULTILINE)
    assert re.fullmatch(r"[A-Z][a-z-]+ .*\.", line)
    assert not re.match(r"(The|A|An|How|What)\b", line)


@pytest.mark.parametrize(("name", "action"), list(options()), ids=lambda x: getattr(x, "dest", x))
def test_an_options_help_is_a_sentence_with_its_default(name: str, action: argparse.Action) -> None:
    parser = command_parser(name, importlib.import_module(COMMANDS[name]))
    text = parser._get_formatter()._expand_help(action)
    assert re.match(r"[A-Z].*\.$", text, re.DOTALL), text
    assert len(re.findall("[Dd]efault:", text)) <= 1
    if action.option_strings and not action.required and not isinstance(action.default, bool):
        is_set = action.default not in (None, [])  # [] for an option that takes a list
        assert is_set <= ("Default:" in text), text


def test_commands_can_be_imported_in_a_bare_install() -> None:
    extras = "{'torch', 'transformers', 'onnx', 'onnx_ir', 'onnxruntime', 'datasets', 'uvicorn', "
    extras += "'starlette', 'fastapi', 'httpx', 'prometheus_client', 'matplotlib', 'pyarrow', "
    extras += "'pytriton', 'chitchat_dataset'}"
    code = f"import sys; sys.modules.update(dict.fromkeys({extras}))\n" + "\n".join(
        f"import {module}; {module}.EXTRA" for module in COMMANDS.values()
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_missing_package_is_told_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("uvicorn", "onnx_ir"):
        monkeypatch.setitem(sys.modules, package, None)
    for loaded in [name for name in sys.modules if name.startswith("reward_export.")]:
        monkeypatch.delitem(sys.modules, loaded)
    assert main(["gateway"]) == 1
    assert capsys.readouterr().err.endswith("pip install 'gpt2-reward[gateway]'\n")
    assert main(["export", "somewhere"]) == 1
    assert capsys.readouterr().err.endswith("pip install 'gpt2-reward[export]'\n")
