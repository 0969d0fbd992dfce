"""Checks whether a version folder holds what the exporter wrote."""

import hashlib
from pathlib import Path

from reward_contract.facts import MANIFEST_NAME, Facts

BLOCK_BYTES = 1 << 20


def read_facts(version: Path) -> Facts | None:
    """The facts in a version's manifest; None if its folder has no readable manifest."""
    try:
        return Facts.from_json((version / MANIFEST_NAME).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def damage(version: Path) -> str | None:
    """What is wrong with a version's files, in a few words; None if they are as exported.

    A folder without a manifest was not written by the exporter, and is not judged: None.

    Args:
        version: the version's folder.
    """
    manifest = version / MANIFEST_NAME
    if not manifest.is_file():
        return None
    facts = read_facts(version)
    if facts is None:
        return f"{MANIFEST_NAME} cannot be read"
    for name, wanted in facts.sha256.items():
        try:
            found = sha256_of(version / name)
        except OSError as error:
            return f"{name}: {error.strerror}"
        if found != wanted:
            return f"{name} has sha256 {found[:12]}..., and the manifest says {wanted[:12]}..."
    return None


def sha256_of(path: Path) -> str:
    """The digest of a file, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
