"""The site in a real browser, from a plain server: its search, and what it loads."""

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import HUNG_S, eventually


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def url(site: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(HUNG_S)


@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("best_above", "api/reward_client.html"),
        ("--heartbeat-timeout", "commands.html"),
        ("VersionTakenError", "errors.html"),
        ("step by step", "first-ranking.html"),
    ],
)
def test_the_search_finds(browser: Any, url: str, words: str, page: str) -> None:
    browser.get_log("browser")  # it is shared: what other tests' pages said is taken out
    browser.get(f"{url}/index.html")
    browser.find_element("css selector", ".md-search__input").send_keys(words)

    def found() -> list[str]:
        # in one go: the page replaces its links while the words are typed
        links = "document.querySelectorAll('.md-search-result__link')"
        return browser.execute_script(f"return [...{links}].map(link => link.href)")

    assert eventually(lambda: any(f"{url}/{page}" in link for link in found())), found()
    loaded = browser.execute_script(
        "return performance.getEntriesByType('resource').map(one => one.name)"
    )
    assert loaded
    assert [one for one in loaded if not one.startswith((url, "data:"))] == []
    assert browser.get_log("browser") == []


def test_pages_fit_a_narrow_screen(browser: Any, url: str) -> None:
    screen = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    try:
        for page in ("index", "commands", "api/reward_client", "benchmarks", "operations"):
            browser.get(f"{url}/{page}.html")
            root = "document.documentElement"
            assert browser.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth"), page
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
