"""The documentation site, built once."""

import subprocess
import sys
from pathlib import Path

import pytest
from page import Page

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `make docs` fills, built in the same way: every warning is an error."""
    pytest.importorskip("mkdocs_autorefs", reason="needs gpt2-reward[docs]")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir"]
    done = subprocess.run(
        [*command, str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def pages(site: Path) -> dict[str, Page]:
    """The site's pages by their paths from its root."""
    return {str(path.relative_to(site)): Page.read(path) for path in site.rglob("*.html")}
