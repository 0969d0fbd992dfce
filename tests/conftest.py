"""Fixtures of several folders. What needs an extra is imported by the fixtures that use it."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import HUNG_S

from reward_contract import MODEL_NAME
from reward_serve.server import ServerOptions, TritonServer

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "model_repository" / MODEL_NAME / "config.pbtxt"


def export_package(module: str) -> Any:
    """A module of the exporter; what asks for it is skipped in a bare install of the client."""
    return pytest.importorskip(f"reward_export.{module}", reason="needs gpt2-reward[export]")


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, 64 wide, the real vocabulary and positions."""
    folder = tmp_path_factory.mktemp("checkpoint")
    make = export_package("random_checkpoint").random_checkpoint
    return make(folder, n_layer=2, n_head=4, n_embd=64)


@pytest.fixture(scope="session")
def repository(checkpoint_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checked-in repository with the checkpoint published as version 1."""
    exporter = export_package("export")
    folder = tmp_path_factory.mktemp("repository")
    (folder / MODEL_NAME).mkdir()
    shutil.copy2(CONFIG, folder / MODEL_NAME)
    exporter.export(exporter.ExportOptions(str(checkpoint_folder), folder), say=print)
    return folder


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[TritonServer]:
    """A real tritonserver with the reward model."""
    options = ServerOptions(repository, grpc_port=0, http_port=0, metrics_port=0)
    with TritonServer(options) as server:
        yield server


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's Chromium, driven by Selenium."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs gpt2-reward[dev]")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as chrome:
        chrome.set_page_load_timeout(HUNG_S)
        yield chrome


def pytest_configure() -> None:
    """Ctrl-C reaches the programs that tests start, also where the suite runs in the background.

    A shell without job control has what it starts with `&` ignore SIGINT, and children inherit it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
