"""Versions that are not served until their files change, and why."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from reward_contract.integrity import damage

Signature = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a model.

    Attributes:
        model: the model's name.
        number: the version number.
    """

    model: str
    number: int

    def __str__(self) -> str:
        return f"{self.model} version {self.number}"


@dataclass(slots=True)
class Quarantine:
    """Versions that are kept from being served.

    It outlives a server, so that the next one does not start on what has just failed.

    Attributes:
        reasons: why, by version.
    """

    reasons: dict[Version, str] = field(default_factory=dict)
    _bad: dict[Version, Signature] = field(default_factory=dict)
    _sound: dict[Version, Signature] = field(default_factory=dict)

    def put(self, version: Version, folder: Path, reason: str) -> None:
        """Keep a version from being served until its files change.

        Raises:
            OSError: the folder is gone.
        """
        self._bad[version] = signature(folder)
        self.reasons[version] = reason

    def admits(self, version: Version, folder: Path) -> bool:
        """Whether a version may be served; its files are read if they have changed.

        Raises:
            OSError: the folder is gone.
        """
        found = signature(folder)
        if self._bad.get(version) == found:
            return False
        if self._sound.get(version) != found:
            if (reason := damage(folder)) is not None:
                self._bad[version], self.reasons[version] = found, reason
                return False
            self._sound[version] = found
        self.reasons.pop(version, None)
        self._bad.pop(version, None)
        return True

    def keep_only(self, versions: set[Version]) -> None:
        """Forget quarantined versions that are not among `versions`."""
        for gone in self.reasons.keys() - versions:
            del self.reasons[gone]
            del self._bad[gone]


def signature(folder: Path) -> Signature:
    """Names, sizes and times of a folder's files, which change when a file does.

    Raises:
        OSError: the folder is gone.
    """
    with os.scandir(folder) as entries:
        return tuple(sorted((e.name, e.stat().st_size, e.stat().st_mtime_ns) for e in entries))
