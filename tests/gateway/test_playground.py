"""The playground in a real browser."""

from typing import Any

import grpc
import httpx
import pytest
from generator import Generator
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait
from waiting import HUNG_S

from reward_client.testing import FakeServer


class Page:
    """What a user does and sees."""

    def __init__(self, browser: webdriver.Chrome, url: str) -> None:
        self.browser = browser
        browser.get("about:blank")
        browser.get(url)

    def one(self, selector: str) -> Any:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[Any]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def type(self, context: str, candidates: str, kind: str = "messages") -> None:
        self.one(f"input[value={kind}]").click()
        for name, text in (("context", context), ("candidates", candidates)):
            self.one(f"#{name}").clear()
            self.one(f"#{name}").send_keys(text)

    def until(self, holds: Any) -> None:
        WebDriverWait(self.browser, HUNG_S).until(lambda _: holds())

    def ranked(self, policy: str = "left") -> list[str]:
        """Candidates of a policy, best first, once they are shown."""
        self.until(lambda: self.all(f"[data-policy={policy}] [aria-pressed=true]"))
        found = self.all(f"[data-policy={policy}] .candidate span:nth-of-type(1)")
        return [one.text for one in found]


def test_a_conversation_is_typed_and_ranked(gateway: Any, browser: webdriver.Chrome) -> None:
    page = Page(browser, gateway())
    page.type("User: Hello there.\nBot: Hi!\nUser: How are you?", "Fine.\nI am very well, thanks.")
    page.one("#candidates").send_keys(Keys.CONTROL, Keys.ENTER)
    assert page.ranked() == ["I am very well, thanks.", "Fine."]
    assert page.ranked("shared_context") == page.ranked()
    told = page.one("#model").text
    assert "version 1" in told
    assert "format lines" in told
    assert "reads 256 tokens" in told
    assert page.one("[data-policy=left] .context").text == "Hello there.\nHi!\nHow are you?"
    assert not page.all(".context del")
    assert "probability 0." in page.one(".candidate .faint").text
    assert page.browser.get_log("browser") == []


@pytest.mark.parametrize("has_own", [True, False])
def test_a_conversation_is_shown_in_the_gateways_own_format(
    gateway: Any, fake: FakeServer, has_own: bool
) -> None:
    if not has_own:
        fake.config.parameters.pop("version.1")
    asked = {"context": [{"role": "user", "content": "Hi"}], "candidates": ["Fine.", "Well, hm."]}
    answer = httpx.post(f"{gateway(chat_format='chai')}/playground/rank", json=asked)
    assert (answer.status_code, answer.json()["context"]) == (200, "User: Hi\nBot:")
    for policy in answer.json()["truncation"].values():
        assert [one["n_cut"] for one in policy["candidates"]] == [0, 0]


def test_what_was_cut_is_shown_for_each_policy(gateway: Any, browser: webdriver.Chrome) -> None:
    page = Page(browser, gateway())
    page.type("word " * 300, "short\n" + "a longer reply " * 20, kind="text")
    page.one("#rank").click()
    assert len(page.ranked()) == 2

    def cut(policy: str) -> list[int]:
        """Characters that were cut, for each candidate in turn."""
        lengths = []
        for button in page.all(f"[data-policy={policy}] .candidate"):
            button.click()
            (removed,) = page.all(f"[data-policy={policy}] .context del")
            lengths.append(len(removed.get_attribute("textContent")))
        return lengths

    short, longer = cut("left")  # equal rewards: in the order given
    assert 0 < short < longer
    assert cut("shared_context") == [longer, longer], "one context for all"


def test_a_link_restores_what_was_typed(gateway: Any, browser: webdriver.Chrome) -> None:
    page = Page(browser, gateway())
    page.type("User: Grüße, 世界", "Hallo!\nJa?")
    page.one("#rank").click()
    page.ranked()
    link = browser.current_url
    assert "#" in link
    again = Page(browser, link)
    assert again.one("#context").get_property("value") == "User: Grüße, 世界"
    assert again.one("#candidates").get_property("value") == "Hallo!\nJa?"


def test_markup_in_a_candidate_is_text(gateway: Any, browser: webdriver.Chrome) -> None:
    attack = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    page = Page(browser, gateway())
    page.type(f"User: {attack}", attack)
    page.one("#rank").click()
    assert page.ranked() == [attack]
    assert page.all("#results img, #results script") == []
    assert page.browser.title == "Reward playground"


def test_errors_are_shown_as_they_are(
    gateway: Any, browser: webdriver.Chrome, fake: FakeServer
) -> None:
    page = Page(browser, gateway())
    page.type("no role", "a")
    page.one("#rank").click()
    page.until(lambda: "has to begin with User:" in page.one("#error").text)
    page.type("User: Hi", "a")
    fake.fail_with = (grpc.StatusCode.UNAVAILABLE, "gone")
    page.one("#rank").click()
    page.until(lambda: "503: " in page.one("#error").text)
    fake.fail_with = None
    page.one("#rank").click()
    assert page.ranked() == ["a"]
    assert not page.one("#error").is_displayed()


def test_a_key_that_is_asked_for_can_be_given(gateway: Any, browser: webdriver.Chrome) -> None:
    page = Page(browser, gateway(api_keys=frozenset({"mine"})))
    page.type("User: Hi", "a")
    page.one("#rank").click()
    page.until(lambda: "401: " in page.one("#error").text)
    page.one("#key").send_keys("mine")
    page.one("#rank").click()
    assert page.ranked() == ["a"]


def test_candidates_are_drawn_from_the_generator(
    gateway: Any, browser: webdriver.Chrome, generator: Generator
) -> None:
    page = Page(browser, gateway(upstream=generator.url, max_n=5))
    page.type("User: Hi", "")
    page.until(page.one("#draw").is_displayed)
    assert page.one("#n").get_attribute("max") == "5"
    page.one("#draw").click()
    assert page.ranked()[0] == "the longest reply of them all"
    assert len(page.ranked()) == 4
    without = Page(browser, gateway())
    assert not without.one("#draw").is_displayed()


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_screen(
    gateway: Any, browser: webdriver.Chrome, width: int
) -> None:
    browser.set_window_size(width, 900)
    page = Page(browser, gateway())
    page.type("User: " + "x" * 500, "y" * 500)
    page.one("#rank").click()
    page.ranked()
    whole = browser.execute_script("return document.documentElement.scrollWidth")
    assert whole <= browser.execute_script("return window.innerWidth")
