"""Files outside docs/ that the site shows, and links that lead to their pages."""

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from docs_site import ROOT

PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
    "checkpoints/chitchat/README.md": "chitchat.md",
}
# these sections of the README are a page of their own
FIRST_RANKING = ("Two commands", "Step by step")
FIRST_RANKING_PAGE = "first-ranking.md"

# [text](file#anchor), across line breaks in the text; pictures as well. Code in fences has none.
LINK = re.compile(
    r"^ *(?P<fence>```+)(?s:.*?)^ *(?P=fence)"
    r"|\[(?P<text>[^\[\]]*)\]\((?!https?:|mailto:|#)(?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)",
    re.MULTILINE,
)
SECTION = re.compile(r"^## ", re.MULTILINE)
NO_SIDEBAR = "---\nhide: [navigation]\n---\n"
LANGUAGES = {".py": "python", ".sh": "bash", ".yaml": "yaml", ".yml": "yaml", ".json": "json"}


def pages() -> dict[str, tuple[str, str]]:
    """Pages that are files outside docs/: the text and the file's name, by the page's place."""
    found = {page: (_read(source), source) for source, page in PAGES.items()}
    home, first = _divided(_read("README.md"))
    return {
        **found,
        "index.md": (home, "README.md"),
        FIRST_RANKING_PAGE: (first, "README.md"),
    }


@dataclass(frozen=True)
class Links:
    """Rewrites links between files so that they lead to the site's pages.

    Attributes:
        titles: of the site's pages, by their place from the root of docs/. A link whose text is
            the name of a file gets the page's title instead.
        wanted: files that links lead to and that have no page yet; `shown` makes one.
    """

    titles: Mapping[str, str]
    wanted: set[str] = field(default_factory=set)

    def lead(self, markdown: str, source: str, page: str) -> str:
        """The text with links that lead to the site's pages.

        Args:
            markdown: text with links that are relative to the file `source`.
            source: that file, from the root of the checkout.
            page: where the text is on the site, from the root of docs/.
        """

        def link(found: re.Match[str]) -> str:
            if found["fence"]:
                return found[0]
            text, target, anchor = found["text"], found["target"], found["anchor"] or ""
            path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
            place = _place(path, anchor)
            if place == _shown(path):
                self.wanted.add(path)
            if text.endswith(".md"):
                text = self.titles.get(place, text)
            return f"[{text}]({posixpath.relpath(place, posixpath.dirname(page) or '.')}{anchor})"

        return LINK.sub(link, markdown)


def shown(path: str) -> tuple[str, str]:
    """The place and the text of a page that shows a file, or lists a folder."""
    file = ROOT / path
    if file.is_dir():
        lines = [f"- [{one.name}]({one.name})" for one in sorted(file.iterdir()) if one.is_file()]
        return _shown(path), f"# {path}\n\n" + "\n".join(lines)
    if file.suffix == ".md":
        return _shown(path), _read(path)
    language = LANGUAGES.get(file.suffix, "text")
    return _shown(path), f"# {path}\n\n````{language}\n{_read(path)}````\n"


def _divided(readme: str) -> tuple[str, str]:
    """The README as two pages: the home page, and the page of the first ranking.

    Raises:
        SystemExit: the README does not have a section of `FIRST_RANKING`.
    """
    head, *sections = SECTION.split(readme)
    by_title = {section.partition("\n")[0]: f"## {section}" for section in sections}
    if missing := [title for title in FIRST_RANKING if title not in by_title]:
        raise SystemExit(f"README.md has no sections {missing}, which {__file__} names")
    first = "".join(by_title.pop(title) for title in FIRST_RANKING)
    return NO_SIDEBAR + head + "".join(by_title.values()), f"# The first ranking\n\n{first}"


def _place(path: str, anchor: str) -> str:
    """Where a file of the checkout is on the site."""
    if path == "README.md" and anchor in {f"#{t.lower().replace(' ', '-')}" for t in FIRST_RANKING}:
        return FIRST_RANKING_PAGE
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return _shown(path)


def _shown(path: str) -> str:
    return f"files/{path.removesuffix('.md')}.md"


def _read(path: str) -> str:
    return (ROOT / path).read_text("utf-8")
