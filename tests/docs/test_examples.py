"""The examples in docstrings say what Python says."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("client", "export", "gateway", "serve", "train")


def modules_with_examples() -> list[str]:
    return [
        ".".join(path.relative_to(ROOT / room).with_suffix("").parts)
        for room in ROOMS
        for path in sorted((ROOT / room).rglob("*.py"))
        if ">>> " in path.read_text("utf-8")
    ]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_examples_are_found() -> None:
    assert {"reward_text.tokens", "reward_export.ranks", "reward_serve.server"} <= set(
        modules_with_examples()
    )
