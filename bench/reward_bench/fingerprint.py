"""A fingerprint of the code that a result was measured with, which shows when it is old."""

import ast
import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from reward_bench.suite import ROOT

DATA = (".pbtxt", ".json", ".bpe")  # files besides Python that determine what our code does
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def fingerprint(measured: Sequence[str]) -> str:
    """The fingerprint of files and folders, named relative to the checkout.

    Comments, docstrings and layout do not count: no measurement depends on them.

    Raises:
        FileNotFoundError: one of them does not exist.
    """
    digest = hashlib.sha256()
    for file in sorted({file for name in measured for file in files(ROOT / name)}):
        digest.update(f"{file.relative_to(ROOT)}\n".encode())
        digest.update(meaning(file))
    return digest.hexdigest()[:16]


def files(path: Path) -> Iterator[Path]:
    """A file, or all files of code and data in a folder."""
    if path.is_dir():
        found = path.rglob("*")
        yield from (file for file in found if file.suffix in (".py", *DATA) and file.is_file())
    elif path.exists():
        yield path
    else:
        raise FileNotFoundError(f"{path} does not exist: name what the suite measures now")


def meaning(file: Path) -> bytes:
    """Bytes that change if what the file does may have changed."""
    return file.read_bytes() if file.suffix != ".py" else of_code(file.read_text("utf-8"))


@cache  # suites measure much of the same code
def of_code(text: str) -> bytes:
    """What a module does, without its comments, docstrings and layout."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return repr(plain(tree)).encode()


def plain(node: object) -> object:
    """A syntax tree as tuples, equal on all versions of Python, unlike the text of `ast.dump`."""
    if isinstance(node, ast.AST):
        fields = [(name, plain(value)) for name, value in ast.iter_fields(node)]
        return (type(node).__name__, *(pair for pair in fields if pair[1] not in (None, [])))
    if isinstance(node, list):
        return [plain(one) for one in node]
    return node
