"""The public names, read from the source: nothing is imported, and no extra is needed for it."""

import functools
from collections.abc import Iterator

import griffe

from docs_site import ROOT

# A name that several of these have is described on the page of the first one.
PUBLIC = (
    "reward_client",
    "reward_client.errors",
    "reward_client.bulk",
    "reward_client.scorer",
    "reward_client.rl.trl",
    "reward_client.rl.verl",
    "reward_client.testing",
    "reward_text",
    "reward_contract",
    "reward_serve.server",
)
ROOMS = ("client", "export", "gateway", "serve", "train")


@functools.cache
def _collection() -> griffe.ModulesCollection:
    """All packages that users install."""
    loader = griffe.GriffeLoader(search_paths=[ROOT / room for room in ROOMS])
    for room in ROOMS:
        for path in sorted((ROOT / room).glob("reward_*/__init__.py")):
            loader.load(path.parent.name)
    loader.resolve_aliases()
    return loader.modules_collection


def packages() -> dict[str, griffe.Module]:
    """All packages that users install, by name."""
    return dict(_collection().members)


def module(name: str) -> griffe.Module:
    """A module by its dotted name."""
    found: griffe.Module = _collection()[name]
    return found


def names(module_name: str) -> list[str]:
    """What a public module lists in `__all__`, sorted.

    Raises:
        SystemExit: the module has no such list, which says what is public.
    """
    listed = module(module_name).exports
    if not listed:
        raise SystemExit(f"{module_name} is public and needs a list `__all__`")
    return sorted(map(str, listed))


@functools.cache
def homes() -> dict[str, str]:
    """The public module that describes an object, by the object's path in the source."""
    found: dict[str, str] = {}
    for module_name in PUBLIC:
        for name in names(module_name):
            found.setdefault(path_of(module_name, name), module_name)
    return found


def path_of(module_name: str, name: str) -> str:
    """Where a public name's object is in the source."""
    return str(module(module_name)[name].canonical_path)


def own_and_taken(module_name: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Names described on the module's own page; and the others, each with its description's path.

    Errors are described on the page of errors, whatever module has them.
    """
    own, taken = [], []
    for name in names(module_name):
        path = path_of(module_name, name)
        home = homes()[path]
        if ".errors." in path:
            taken.append((name, path))
        elif home == module_name:
            own.append(name)
        else:
            taken.append((name, f"{home}.{name}"))
    return own, taken


def objects() -> Iterator[tuple[str, griffe.Object]]:
    """Every public object once, by the first `module.name` that has it."""
    for module_name in PUBLIC:
        for name in names(module_name):
            if homes()[path_of(module_name, name)] == module_name:
                found = module(module_name)[name]
                yield f"{module_name}.{name}", found.final_target if found.is_alias else found
