"""What has to agree before a release: versions, Pythons, and what CI calls."""

import re
from pathlib import Path
from typing import Any

import pytest
from environments import ROOT

yaml = pytest.importorskip("yaml", reason="needs gpt2-reward[dev]")

PROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
NUMBER = re.compile(r"\d+\.\d+\.\d+")


def only(pattern: str, text: str) -> str:
    (found,) = re.findall(pattern, text, re.MULTILINE)
    return str(found)


VERSION = only(r'^version = "(.*)"$', PROJECT)


def test_the_newest_dated_section_of_the_changelog_is_the_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    unreleased, newest, *_ = re.findall(r"^## (.*)$", changelog, re.MULTILINE)
    assert unreleased == "Unreleased"
    assert re.fullmatch(rf"{re.escape(VERSION)} \(\d{{4}}-\d\d-\d\d\)", newest)


def test_images_in_deploy_have_the_version() -> None:
    files = [path for path in (ROOT / "deploy").rglob("*") if path.is_file()]
    tags = {
        tag
        for path in files
        for tag in re.findall(r"gpt2-reward[a-z-]*:([\w.]+)", path.read_text("utf-8"))
        if NUMBER.fullmatch(tag)
    }
    assert tags == {VERSION}


def test_the_version_is_in_no_module() -> None:
    for room in ("client", "export", "gateway", "serve", "train"):
        for path in Path(ROOT / room).rglob("*.py"):
            assert f'"{VERSION}"' not in path.read_text("utf-8"), path


def jobs() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text("utf-8"))["jobs"]
    return found


def commands() -> list[str]:
    """What the workflow runs, once for each target of its matrix."""
    return [
        step["run"].replace("${{ matrix.target }}", target)
        for job in jobs().values()
        for step in job["steps"]
        for target in job["strategy"]["matrix"].get("target", [""])
        if "run" in step
    ]


def targets(text: str) -> set[str]:
    return set(re.findall(r"^make ([a-z-]+)", text, re.MULTILINE))


def test_the_workflow_calls_what_the_script_calls_and_the_coverage() -> None:
    assert all(command.startswith("make ") for command in commands())
    called = targets("\n".join(commands()))
    by_script = targets((ROOT / ".ci" / "run").read_text("utf-8"))
    assert called == by_script | {"coverage"}  # which runs what `make test` has run
    assert called <= set(re.findall(r"^([a-z-]+):.*##", MAKEFILE, re.MULTILINE))


def test_the_workflow_has_the_pythons_that_are_promised() -> None:
    first = only(r'^requires-python = ">=3\.(\d+)"$', PROJECT)
    beyond = only(r"nvidia-pytriton==.*python_version < '3\.(\d+)'", PROJECT)
    served = [f"3.{minor}" for minor in range(int(first), int(beyond))]
    matrix = {name: job["strategy"]["matrix"].get("python") for name, job in jobs().items()}
    assert matrix["test"] == matrix["client"] == served
    assert matrix["client-newest"][0] == f"3.{beyond}"
