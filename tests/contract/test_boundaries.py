"""Which package may import which: arrows go one way, and light packages stay light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("client", "export", "gateway", "serve", "train", "bench")
FRAMEWORKS = {"torch", "transformers", "datasets", "onnx", "onnx_ir", "onnxruntime", "pytriton"}

# which of this project's packages each one may import
MAY_IMPORT = {
    "client/reward_contract": set(),
    "client/reward_text": {"reward_contract"},
    "client/reward_client": {"reward_contract", "reward_text"},
    "export/reward_export": {"reward_contract", "reward_text"},
    "gateway/reward_gateway": {"reward_contract", "reward_text", "reward_client"},
    "serve/reward_serve": {"reward_contract"},
    "train/reward_train": {"reward_contract", "reward_text", "reward_export"},
    # in addition to what their parent may import
    "train/reward_train/commands": {"reward_client"},
    "train/reward_train/evaluate": {"reward_client"},
    "bench/reward_bench": {
        *("reward_contract", "reward_text", "reward_client", "reward_export", "reward_serve")
    },
}


def imports_of(module: Path) -> Iterator[str]:
    """Top-level names of everything that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            yield str(node.module).partition(".")[0]


def allowed(module: Path) -> set[str]:
    folders = [folder for folder in MAY_IMPORT if ROOT / folder in module.parents]
    own = {Path(folder).parts[1] for folder in folders}
    return own.union(*(MAY_IMPORT[folder] for folder in folders))


def modules() -> list[Path]:
    return [path for room in ROOMS for path in python(room)]


def python(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("module", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_between_packages_go_one_way(module: Path) -> None:
    ours = {name for name in imports_of(module) if name.startswith("reward_")}
    assert ours <= allowed(module)


def test_every_package_has_its_rule() -> None:
    found = {str(path.parent.relative_to(ROOT)) for path in ROOT.glob("*/reward_*/__init__.py")}
    assert found == {folder for folder in MAY_IMPORT if folder.count("/") == 1}


def test_the_contract_needs_the_standard_library_alone() -> None:
    names = {name for path in python("client/reward_contract") for name in imports_of(path)}
    assert names - {"reward_contract"} <= sys.stdlib_module_names


def loaded_by(statement: str) -> set[str]:
    """What a fresh interpreter has loaded after a statement, beyond what it starts with."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_importing_the_contract_loads_nothing_else() -> None:
    loaded = loaded_by("import reward_contract, reward_contract.cpu, reward_contract.errors")
    # the last two alone would cost several times as much as the package
    assert not loaded & {"grpc", "numpy", "dataclasses", "typing"}
    assert loaded - {"reward_contract"} <= sys.stdlib_module_names


def test_text_needs_no_grpc() -> None:
    assert not loaded_by("import reward_text") & {"grpc", "tritonclient", "google", *FRAMEWORKS}


@pytest.mark.parametrize(
    "module",
    ["reward_client.cli", "reward_client.commands.score", "reward_train.commands.evaluate"],
)
def test_what_chat_services_import_loads_no_framework(module: str) -> None:
    assert not loaded_by(f"import {module}") & {*FRAMEWORKS, "matplotlib", "reward_serve"}
