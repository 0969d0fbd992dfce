"""Prints pip constraints: the oldest version that pyproject.toml allows of each dependency."""

import re
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"
BOUND = re.compile(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)")


def oldest(project: str) -> list[str]:
    """Lines such as `numpy==1.26`. Parsed by hand: Python 3.10 has no reader of TOML."""
    found = re.search(r"^dependencies = \[\n(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    if found is None:
        raise SystemExit(f"{PROJECT} has no list of dependencies")
    lines = []
    for requirement in re.findall(r'^ *"(.*?)"', found[1], re.MULTILINE):
        bound = BOUND.fullmatch(requirement)
        if bound is None:
            raise SystemExit(f"{requirement} must have a lower bound, and only that")
        lines.append(f"{bound[1]}=={bound[2]}")
    return lines


if __name__ == "__main__":
    print("\n".join(oldest(PROJECT.read_text("utf-8"))))
