"""Hooks that mkdocs.yml names: pages that are made from the source while the site is built.

In a page of docs/, a line `<!-- generated: NAME -->` marks where generated text belongs.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from docs_site import ROOT, api, commands, errors, sources
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

GENERATED = re.compile(r"^<!-- generated: ([a-z-]+) -->$", re.MULTILINE)


def _configuration() -> str:
    text = (ROOT / "model_repository/gpt2_reward/config.pbtxt").read_text("utf-8")
    return f"```proto\n{text}```"


GENERATORS: dict[str, Callable[[], str]] = {
    "commands": commands.markdown,
    "configuration": _configuration,
    "errors": errors.markdown,
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/: of modules, of other files, of files linked to."""
    links = sources.Links(dict(_titles(config.nav)))
    for file in files.documentation_pages():
        file.content_string = links.lead(file.content_string, f"docs/{file.src_uri}", file.src_uri)
    for place, text in api.pages().items():
        files.append(File.generated(config, place, content=text))
    for place, (text, source) in sources.pages().items():
        files.append(File.generated(config, place, content=links.lead(text, source, place)))
    done: set[str] = set()
    while left := links.wanted - done:
        for path in sorted(left):
            place, text = sources.shown(path)
            text = links.lead(text, f"{path}/" if (ROOT / path).is_dir() else path, place)
            kept = InclusionLevel.NOT_IN_NAV
            files.append(File.generated(config, place, content=text, inclusion=kept))
        done |= left
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in the generated texts of a page."""
    del page, config, files
    return GENERATED.sub(lambda found: GENERATORS[found[1]](), markdown)


def _titles(nav: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401  # lists, mappings and strings
    """The place and title of each page that the navigation names."""
    for item in nav or []:
        for title, inside in item.items():
            if isinstance(inside, str):
                yield inside, title
            else:
                yield from _titles(inside)
