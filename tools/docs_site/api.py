"""Pages of the public modules, which mkdocstrings fills in from the docstrings."""

from docs_site.surface import PUBLIC, module, own_and_taken


def pages() -> dict[str, str]:
    """Markdown of a page for each public module, by its place on the site."""
    return {f"api/{name}.md": _page(name) for name in PUBLIC}


def _page(name: str) -> str:
    own, taken = own_and_taken(name)
    docstring = module(name).docstring
    lines = [f"# {name}\n", docstring.value if docstring else "", ""]
    lines += [f"::: {name}.{one}\n" for one in own]
    if taken:
        lines.append("## Described elsewhere\n" if own else "## Names\n")
        lines += [f'- <span id="{name}.{one}"></span>[`{one}`][{path}]' for one, path in taken]
    return "\n".join(lines)
