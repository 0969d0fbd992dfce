"""Prints the public names with their signatures, one parameter per line.

python tools/public_api.py > tests/docs/public_api.txt
"""

from collections.abc import Iterator

import griffe
from docs_site.surface import objects


def lines() -> Iterator[str]:
    """The public API as the source has it: names, parameters, annotations, defaults."""
    for name, found in objects():
        yield from _described(name, found)


def _described(name: str, found: griffe.Object) -> Iterator[str]:
    if isinstance(found, griffe.Class):
        yield f"class {name}{_bases(found)}"
        yield from _parameters(found.parameters)
        for member_name, member in sorted(found.all_members.items()):
            if not member_name.startswith("_"):
                target = member.final_target if member.is_alias else member
                yield from _described(f"{name}.{member_name}", target)
    elif isinstance(found, griffe.Function):
        yield f"{'async ' if 'async' in found.labels else ''}def {name} -> {found.returns}"
        yield from _parameters(found.parameters)
    elif isinstance(found, griffe.Attribute):
        kind = "property" if "property" in found.labels else "value"
        said = "" if found.annotation is None else f": {found.annotation}"
        yield f"{kind} {name}{said}{_constant(found)}"


def _constant(found: griffe.Attribute) -> str:
    """The value of a constant or an alias; fields and properties have none worth showing."""
    is_field = isinstance(found.parent, griffe.Class)
    return "" if is_field or found.value is None else f" = {found.value}"


def _bases(found: griffe.Class) -> str:
    return f"({', '.join(map(str, found.bases))})" if found.bases else ""


def _parameters(parameters: griffe.Parameters) -> Iterator[str]:
    keyword_only = griffe.ParameterKind.keyword_only
    for parameter in parameters:
        if parameter.name in {"self", "cls"}:
            continue
        kind = " (by keyword)" if parameter.kind is keyword_only else ""
        default = "" if parameter.required else f" = {parameter.default}"
        yield f"    {parameter.name}: {parameter.annotation}{default}{kind}"


if __name__ == "__main__":
    print("\n".join(lines()))
