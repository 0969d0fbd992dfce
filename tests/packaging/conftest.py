from pathlib import Path

import pytest
from environments import ROOT, build


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    return build(ROOT, tmp_path_factory.mktemp("dist"))
