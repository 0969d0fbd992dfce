"""Fixtures for several folders. Imports that need an extra are inside the fixtures."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from network import answers, free_port
from waiting import HUNG_S, eventually

from reward_contract import MODEL_NAME
from reward_serve.server import ServerOptions, TritonServer

# a busy machine may take its time with any example
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "model_repository" / MODEL_NAME / "config.pbtxt"
TEMPLATE = "{% for one in messages %}{{ one['content'] }}\n{% endfor %}"


def export_package(module: str) -> Any:
    """A module of the exporter; tests that ask for it are skipped in a bare client install."""
    return pytest.importorskip(f"reward_export.{module}", reason="needs gpt2-reward[export]")


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint: two layers, 64 wide, the real vocabulary and positions."""
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
def generator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """`transformers serve` with a tiny model of random weights. -> its URL and model."""
    import torch  # noqa: PLC0415  # absent in a bare install
    from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer  # noqa: PLC0415

    folder = str(tmp_path_factory.mktemp("generator"))
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=32, n_head=2))
    model.generation_config.do_sample = True
    model.save_pretrained(folder)
    data = resources.files("reward_text") / "data"
    tokenizer = GPT2Tokenizer(vocab=str(data / "encoder.json"), merges=str(data / "vocab.bpe"))
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    port = free_port()
    program = Path(sys.executable).with_name("transformers")
    command = [program, "serve", folder, "--port", str(port), "--device", "cpu"]
    with subprocess.Popen(command, env={**os.environ, "HF_HUB_OFFLINE": "1"}) as process:
        try:
            assert eventually(lambda: answers(f"http://localhost:{port}/health"))
            yield f"http://localhost:{port}/v1", folder
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's Chromium, driven by Selenium."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs gpt2-reward[dev]")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    size = "--window-size=1280,900"  # of a desktop, on which pages show everything
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", size):
        options.add_argument(argument)
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as chrome:
        chrome.set_page_load_timeout(HUNG_S)
        yield chrome


def pytest_configure() -> None:
    """Let Ctrl-C reach the programs that tests start, even if the suite runs in the background.

    A shell without job control makes commands started with `&` ignore SIGINT; children inherit it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
