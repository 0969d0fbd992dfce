"""The site has everything public, has no broken links, and fetches nothing from elsewhere."""

import argparse
import importlib
import inspect
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
from page import Page

from reward_client.cli import command_modules, command_parser
from reward_contract.errors import RewardError

pytest.importorskip("griffe", reason="needs gpt2-reward[docs]")
from docs_site.sources import Links
from docs_site.surface import PUBLIC

ROOT = Path(__file__).parents[2]
ERRORS = (
    "reward_client.bulk",
    "reward_export.errors",
    "reward_serve.errors",
    "reward_train.errors",
)
FETCHED = re.compile(r"url\(\s*['\"]?(https?:|//)|@import\s+['\"]?(https?:|//)")


def test_nothing_is_fetched_from_elsewhere(site: Path, pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        found = [one.get("src") for one in page.all("script", "img", "iframe", "source", "video")]
        found += [one["href"] for one in page.all("link") if one.get("rel") != "canonical"]
        assert [url for url in found if re.match("https?:|//", url or "")] == [], name
    for sheet in site.rglob("*.css"):
        assert not FETCHED.search(sheet.read_text("utf-8")), sheet


def test_pictures_have_alternative_texts(pages: dict[str, Page]) -> None:
    pictures = [picture for page in pages.values() for picture in page.all("img")]
    assert len(pictures) >= 10
    for picture in pictures:
        assert len(picture.get("alt") or "") > 10, picture["src"]


def test_code_in_fences_is_not_read_as_links() -> None:
    code = "```python\nrewards[0](README.md)\n```\n"
    markdown = f"[one](README.md)\n\n{code}- item\n\n    {code}[two](CHANGELOG.md)\n"
    led = Links({}, set()).lead(markdown, "LICENSE", "page.md")
    assert led == markdown.replace("[one](README.md)", "[one](index.md)").replace(
        "CHANGELOG.md", "changelog.md"
    )


def test_links_lead_to_pages_and_their_anchors(site: Path, pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        if name == "404.html":  # its links start at a server's root
            continue
        for link in page.all("a"):
            target, anchor = urldefrag(link.get("href") or "")
            if re.match("https?:|mailto:", target):
                continue
            path = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
            path = name if target in {"", "."} else unquote(path)
            assert (site / path).is_file(), f"{name}: {link}"
            if anchor and path in pages:
                assert unquote(anchor) in pages[path].ids, f"{name}: {link}"


def test_what_is_generated_is_filled_in(site: Path) -> None:
    for path in site.rglob("*.html"):
        assert "generated:" not in path.read_text("utf-8"), path


LISTED = (property, classmethod)  # besides functions


def public() -> Iterator[tuple[str, str]]:
    """All public names at run time. -> (module, name), methods and properties as Class.name."""
    for module_name in PUBLIC:
        module = importlib.import_module(module_name)
        for name in module.__all__:
            yield module_name, name
            found = getattr(module, name)
            if inspect.isclass(found) and found.__module__ == module_name:
                for member, value in vars(found).items():
                    is_listed = inspect.isfunction(value) or isinstance(value, LISTED)
                    if is_listed and not member.startswith("_"):
                        yield module_name, f"{name}.{member}"


def test_every_public_name_is_on_the_page_of_its_module(pages: dict[str, Page]) -> None:
    found = list(public())
    assert ("reward_client", "RewardClient") in found
    missing = [
        f"{module}.{name}"
        for module, name in found
        if f"{module}.{name}" not in pages[f"api/{module}.html"].ids
    ]
    assert missing == []


def test_the_page_of_public_names_lists_the_modules() -> None:
    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    assert tuple(re.findall(r"^\| `([a-z_.]+)` \|", page, re.MULTILINE)) == PUBLIC


def options() -> list[tuple[str, argparse.Action]]:
    return [
        (name, action)
        for name, module in command_modules().items()
        for action in command_parser(name, importlib.import_module(module))._actions
        if not isinstance(action, argparse._HelpAction)
    ]


def test_every_option_is_in_its_commands_section(site: Path) -> None:
    _, *sections = re.split(r'<h2 id="', (site / "commands.html").read_text("utf-8"))
    by_command = {section.partition('"')[0]: section for section in sections}
    assert list(by_command) == list(command_modules())
    for name, action in options():
        for written in action.option_strings or [str(action.metavar)]:
            heading = rf"<dt><code>[^<]*{re.escape(written)}\b[^<]*</code></dt>\s*<dd>\s*\S"
            assert re.search(heading, by_command[name]), f"{name} {written}"


def errors(root: type[RewardError] = RewardError) -> Iterator[type[RewardError]]:
    yield root
    for error in root.__subclasses__():
        yield from errors(error)


def test_every_error_is_on_the_page_of_errors(pages: dict[str, Page]) -> None:
    for module in ERRORS:
        importlib.import_module(module)
    found = {f"{error.__module__}.{error.__qualname__}" for error in errors()}
    ours = {name for name in found if name.startswith("reward_")}
    assert {"reward_export.errors.ParityError", "reward_serve.errors.HostError"} <= ours
    assert ours - pages["errors.html"].ids == set()
