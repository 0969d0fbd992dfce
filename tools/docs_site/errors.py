"""The tree of errors as a page, from the classes that the source has."""

from collections.abc import Iterator

import griffe

from docs_site.surface import packages

ROOT_ERROR = "reward_contract.errors.RewardError"


def markdown() -> str:
    """The whole tree, each error with what it means, and then each with its attributes."""
    children = tree()
    return "\n".join([*_list(children, ROOT_ERROR, 0), "", *_described(children, ROOT_ERROR)])


def tree() -> dict[str, list[griffe.Class]]:
    """The errors under the project's one root, by the path of the error that they derive from."""
    found: dict[str, list[griffe.Class]] = {}
    # reward_contract first: the others raise its errors as well
    for name in sorted(packages(), key=lambda name: name != "reward_contract"):
        for error in _classes(packages()[name]):
            for base in error.resolved_bases:
                found.setdefault(base.canonical_path, []).append(error)
    return found


def _classes(module: griffe.Module) -> Iterator[griffe.Class]:
    """The classes defined in a module or in one inside it, in the order of the source."""
    for member in module.members.values():
        if isinstance(member, griffe.Module):
            yield from _classes(member)
        elif isinstance(member, griffe.Class):
            yield member


def _list(children: dict[str, list[griffe.Class]], parent: str, depth: int) -> Iterator[str]:
    if depth == 0:
        yield "- [`RewardError`][reward_contract.errors.RewardError]"
    for error in children.get(parent, []):
        meaning = error.docstring.value.partition("\n")[0] if error.docstring else ""
        yield f"{'    ' * (depth + 1)}- [`{error.name}`][{error.canonical_path}]: {meaning}"
        yield from _list(children, error.canonical_path, depth + 1)


def _described(children: dict[str, list[griffe.Class]], path: str) -> Iterator[str]:
    """Directives of mkdocstrings, in the order of the tree."""
    yield f"\n::: {path}\n    options:\n      inherited_members: false\n"
    for error in children.get(path, []):
        yield from _described(children, error.canonical_path)
