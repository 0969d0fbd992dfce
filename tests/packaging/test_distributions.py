"""What the wheel and the sdist hold, and what a container image is built from."""

import re
import shutil
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from environments import ROOT, build

CONFIG = ROOT / "model_repository" / "gpt2_reward" / "config.pbtxt"
PACKAGES = sorted(  # all that a user installs; bench/ stays in the checkout
    path.parent for path in ROOT.glob("*/reward_*/__init__.py") if "bench" not in path.parts
)


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="session")
def wheel(distributions: Path) -> Path:
    (found,) = distributions.glob("*.whl")
    return found


def test_the_wheel_has_every_file_of_every_package(wheel: Path) -> None:
    ours = {
        str(path.relative_to(package.parent))
        for package in PACKAGES
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    data = {name for name in names_in(wheel) if ".dist-info/" not in name}
    assert data == {*ours, "reward_export/data/config.pbtxt"}


def test_the_wheel_carries_the_configuration_that_is_checked_in(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("reward_export/data/config.pbtxt") == CONFIG.read_bytes()


def test_the_sdist_is_what_the_wheel_is_built_from_and_little_more(distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    assert sdist.stat().st_size < 1_500_000
    with tarfile.open(sdist) as archive:
        tops = {name.split("/")[1] for name in archive.getnames()}
    assert not tops & {"checkpoints", "bench", "docs", "tests", "demo", "deploy"}


def test_the_container_is_built_from_files_that_make_the_same_wheel(
    wheel: Path, tmp_path: Path
) -> None:
    text = (ROOT / "deploy" / "Containerfile").read_text()
    copied = [line.split()[1:] for line in text.splitlines() if line.startswith("COPY ")]
    image = tmp_path / "srv"
    image.mkdir()
    for *sources, target in copied:
        if target.startswith("/"):  # what is served, not what is built
            continue
        for source in sources:
            place = image / target / (source if target == "./" else "")
            place.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy2
            copy(ROOT / source, place)
    assert [
        "model_repository/gpt2_reward/config.pbtxt",
        "/models/gpt2_reward/config.pbtxt",
    ] in copied
    (built,) = build(image, tmp_path / "dist", "--wheel").glob("*.whl")
    assert names_in(built) == names_in(wheel)


def test_every_extra_that_a_message_or_a_page_names_is_one(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        extras = set(message_from_bytes(archive.read(name)).get_all("Provides-Extra", []))
    files = [ROOT / "README.md", *ROOT.glob("docs/*.md")]
    files += [path for package in PACKAGES for path in package.rglob("*.py")]
    for file in files:
        for found in re.findall(r"gpt2-reward\[([a-z,-]+)\]", file.read_text()):
            assert set(found.split(",")) <= extras, file
