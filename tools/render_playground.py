"""Takes the pictures of the playground in docs/images.

    make demo                                   # publishes checkpoints/chitchat
    python tools/render_playground.py

Serves what the demo has published with tritonserver and the gateway, opens the page in Chromium
(Debian's chromium and chromium-driver), and ranks what was really said next in real conversations
among replies from others.
"""

import base64
import io
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from reward_export.conversations import conversations
from reward_serve.server import ServerOptions, TritonServer

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
REPOSITORY = ROOT / "demo" / "model_repository"
POLICIES = ("left", "shared_context")
N_OTHERS, STEP = 4, 5  # replies of other conversations, and how far apart those are
ALL_HAVE = 8  # turns, at least
N_COLOURS = 64
SHOW_LAST_LINES = """
for (const box of document.querySelectorAll("textarea")) {
  box.style.height = `${Math.min(box.scrollHeight + 4, 260)}px`;
  box.scrollTop = box.scrollHeight;
}"""
PATIENCE_S, MARGIN = 120, 14


@dataclass(frozen=True)
class Picture:
    """A page with a conversation that is ranked.

    Attributes:
        name: of the file.
        dialogue: place in the exporter's sample.
        n_turns: of the conversation; the next turn is the real reply.
        width: of the page, in CSS pixels.
        scale: pixels of the picture per CSS pixel.
        last: selector of the element below which the picture ends.
    """

    name: str
    dialogue: int
    n_turns: int
    width: int
    scale: float
    last: str

    def fragment(self) -> str:
        """The link that restores conversation and candidates."""
        dialogues = conversations()
        turns = dialogues[self.dialogue].turns
        roles = ("Bot", "User")  # the last one is the user's
        said = [
            f"{roles[(self.n_turns - place) % 2]}: {turn}"
            for place, turn in enumerate(turns[: self.n_turns])
        ]
        turn = min(self.n_turns, ALL_HAVE - 1)
        others = [
            dialogues[(self.dialogue + 1 + STEP * i) % len(dialogues)].turns[turn]
            for i in range(N_OTHERS)
        ]
        candidates = [*others[:2], turns[self.n_turns], *others[2:]]
        typed = {"kind": "messages", "context": "\n".join(said)}
        text = json.dumps({**typed, "candidates": "\n".join(candidates)})
        return base64.urlsafe_b64encode(text.encode()).decode()


PICTURES = (
    Picture("ranking", dialogue=10, n_turns=6, width=1000, scale=1.5, last="ol"),
    # too long to be read whole
    Picture("playground", dialogue=41, n_turns=21, width=1240, scale=1, last=".panel"),
)


def main() -> int:
    """Write the pictures."""
    with gateway() as url, chrome() as browser:
        for picture in PICTURES:
            take(picture, browser, url)
    return 0


@contextmanager
def gateway() -> Iterator[str]:
    """The page's address, served by a gateway to a real server."""
    options = ServerOptions(REPOSITORY, grpc_port=0, http_port=0, metrics_port=0)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("gpt2-reward")
    with TritonServer(options) as server:
        command = [program, "gateway", f"--url={server.grpc_url}", f"--port={port}"]
        with subprocess.Popen(command) as process:  # noqa: S603  # our own command
            try:
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()


@contextmanager
def chrome() -> Iterator[webdriver.Chrome]:
    """A headless Chromium, in the light colour scheme."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
    ):
        options.add_argument(argument)
    with webdriver.Chrome(options, Service(shutil.which("chromedriver"))) as browser:
        yield browser


def take(picture: Picture, browser: webdriver.Chrome, url: str) -> None:
    """Rank what the link holds, and save the page as an image of few colours."""
    look(browser, picture.width, 900, picture.scale)
    wait = WebDriverWait(browser, PATIENCE_S, ignored_exceptions=(Exception,))
    wait.until(lambda _: _open(browser, f"{url}/#{picture.fragment()}"))
    browser.execute_script(SHOW_LAST_LINES)
    for _ in range(2):  # the first call pays for connections and memory
        browser.execute_script("document.getElementById('results').replaceChildren()")
        browser.find_element(By.ID, "rank").click()
        wait.until(lambda _: all(ranked(browser, policy) for policy in POLICIES))
    look(browser, picture.width, height(browser, picture.last), picture.scale)
    image = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    file = IMAGES / f"{picture.name}.png"
    image.quantize(N_COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file}: {image.width} x {image.height}, {file.stat().st_size / 1e3:.0f} kB")


def _open(browser: webdriver.Chrome, url: str) -> bool:
    browser.get("about:blank")  # otherwise a new fragment would load nothing
    browser.get(url)
    return "playground" in browser.title


def look(browser: webdriver.Chrome, width: int, height: int, scale: float) -> None:
    """Set the size of the page."""
    size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def ranked(browser: webdriver.Chrome, policy: str) -> Sequence[object]:
    """The chosen candidate of a policy, once it is there."""
    return browser.find_elements(By.CSS_SELECTOR, f"[data-policy={policy}] [aria-pressed=true]")


def height(browser: webdriver.Chrome, selector: str) -> int:
    """Height of the page down to the elements of a selector, in CSS pixels, with a margin."""
    script = "return Math.max(...[...document.querySelectorAll(arguments[0])].map(bottom))"
    bottom = "const bottom = (one) => one.getBoundingClientRect().bottom + scrollY;"
    return int(browser.execute_script(bottom + script, selector)) + MARGIN


if __name__ == "__main__":
    sys.exit(main())
