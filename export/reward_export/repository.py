"""A reward model's folder in a Triton repository.

A version is put there whole or not at all: everything is written into a hidden folder, flushed
to disk, and renamed into place in one step. The hidden folder is made next to the repository:
inside the model's folder, every write would make a server that polls reload the version that it
serves; inside the repository, the server would take it for a model. If the repository is a volume
of its own, only the model's folder is possible.

No version is ever replaced. Clients pin a version, and files of rewards name the version that
gave them, so a number has to mean the same model forever; and if a folder is replaced while it is
read, the reader gets the graph of one model and the weights of another.
"""

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from reward_contract import MODEL_NAME
from reward_contract.facts import Facts
from reward_export.configuration import CONFIG_NAME, configuration, show
from reward_export.errors import PublishError, VersionTakenError
from reward_export.staging import one_at_a_time, staged_in, sweep

_WITHDRAWN = ".withdrawn-"  # hidden from Triton, which reads numbers only
_NAME = re.compile(r"[A-Za-z][\w.-]*", re.ASCII)  # used as a folder's name and in URLs


class ModelFolder:
    """The versions of a reward model in a repository, and its configuration.

    Args:
        repository: the model repository, which need not exist yet.
        name: the model's name, by which clients ask for it.

    Attributes:
        repository: as given.
        name: as given.
        path: the model's folder in the repository.

    Raises:
        PublishError: no model can have this name.
    """

    def __init__(self, repository: Path, name: str = MODEL_NAME) -> None:
        if not _NAME.fullmatch(name):
            raise PublishError(
                f"a model cannot be named {name!r}: its name is that of a folder, begins with a "
                "letter, and continues with letters, digits and _ . -"
            )
        self.repository = repository
        self.name = name
        self.path = repository / name

    def versions(self) -> list[int]:
        """Numbers of the versions that Triton can serve, ascending."""
        return sorted(
            int(path.name)
            for path in self.path.glob("[1-9]*")
            if path.is_dir() and path.name.isdecimal()
        )

    def check(self, version: int | None = None) -> None:
        """Refuse a version that cannot be published, before any work is done.

        Args:
            version: the number that is wanted; None for the next free one.

        Raises:
            PublishError: the repository cannot be made there, or Triton does not serve the number.
            VersionTakenError: another version has the number, or had it.
        """
        parent = self.repository.parent
        if not parent.is_dir():
            raise PublishError(
                f"there is no folder {parent} to make the model repository "
                f"{self.repository.name} in; make it, or name another with --repository"
            )
        if version is None:
            return
        if version < 1:
            raise PublishError(f"version {version} is not served by Triton; versions begin at 1")
        if (self.path / str(version)).exists() or version in self._withdrawn():
            raise self._taken(version)

    def configure(self) -> Path | None:
        """Write the model's configuration if there is none, and make the folders for it.

        Returns:
            the file that was written; None if there is one, which is left unchanged.

        Raises:
            PublishError: it cannot be written.
        """
        config = self.path / CONFIG_NAME
        if config.is_file():
            return None
        content = configuration(self.name)
        try:
            for folder in (self.repository, self.path):
                if not folder.is_dir():
                    folder.mkdir(exist_ok=True)
                    folder.chmod(0o755)  # whatever the umask: another user may serve it
            _write(config, content)
        except OSError as error:
            raise PublishError(f"cannot write {config}: {error.strerror}") from error
        return config

    @contextlib.contextmanager
    def staging(self, *, needed_bytes: int) -> Iterator[Path]:
        """An empty hidden folder on the versions' disk, removed at the end unless published.

        Folders that killed exports have left there are removed first.

        Args:
            needed_bytes: how much will be written, checked against the free space beforehand.

        Raises:
            PublishError: the disk is or becomes full, or the folder cannot be written.
        """
        try:
            room = _room_for_staging(self.path)
            sweep(room)
            free = shutil.disk_usage(room).free
            if free < needed_bytes:
                raise PublishError(
                    f"{self.path} has {free / 1e6:.0f} MB free; the version needs "
                    f"{needed_bytes / 1e6:.0f} MB"
                )
            with staged_in(room) as path:
                yield path
        except OSError as error:
            raise PublishError(f"cannot write to {self.path}: {error.strerror or error}") from error

    def publish(self, staged: Path, version: int | None = None, facts: Facts | None = None) -> Path:
        """Rename a staged folder into its version, and return where it is now.

        Args:
            staged: the folder that `staging` gave, complete.
            version: the number; the next free one if None.
            facts: the version's, which the configuration shows to clients of a server.

        Raises:
            VersionTakenError: another version has the number, or had it.
        """
        for path in staged.iterdir():
            path.chmod(0o644)  # whatever the umask: another user may serve it
            _flush(path)
        _flush(staged)
        with one_at_a_time(self.path):
            if version is None:
                target = self._rename_to_next(staged, facts)
            else:
                target = self._rename(staged, version, facts)
        _flush(self.path)
        return target

    def withdraw(self) -> tuple[Path, Path]:
        """Hide the newest version from Triton, in one step, and keep its files.

        Its number is not used again: clients have seen it answer.

        Returns:
            where the withdrawn version is now, and the version that is the newest now.

        Raises:
            PublishError: there is no earlier version, or the folder cannot be written.
        """
        *earlier, newest = self.versions() or [0]
        if not earlier:
            raise PublishError(
                f"{self.path} has no version before {newest or 'the first'} to go back to; "
                "export a better one, which then becomes the newest"
            )
        withdrawn = self.path / f"{_WITHDRAWN}{newest}"
        try:
            (self.path / str(newest)).rename(withdrawn)
            _flush(self.path)
        except OSError as error:
            raise PublishError(
                f"cannot rename {self.path / str(newest)} to {withdrawn.name}: {error.strerror}"
            ) from error
        return withdrawn, self.path / str(earlier[-1])

    def _rename_to_next(self, staged: Path, facts: Facts | None) -> Path:
        """Take the next free number; if folders cannot be locked, the first to rename has it."""
        while True:
            with contextlib.suppress(VersionTakenError):
                return self._rename(staged, max(self.taken_numbers(), default=0) + 1, facts)

    def _rename(self, staged: Path, version: int, facts: Facts | None) -> Path:
        self.check(version)
        if facts is not None:
            show(self.path / CONFIG_NAME, version, facts, kept=self.taken_numbers(), scratch=staged)
        try:
            return staged.rename(self.path / str(version))
        except OSError as error:
            if error.errno in {errno.EEXIST, errno.ENOTEMPTY}:
                raise self._taken(version) from error
            raise

    def taken_numbers(self) -> list[int]:
        """Numbers of versions that exist or were withdrawn, which are not used again."""
        return [*self.versions(), *self._withdrawn()]

    def _withdrawn(self) -> list[int]:
        hidden = (path.name.removeprefix(_WITHDRAWN) for path in self.path.glob(f"{_WITHDRAWN}*"))
        return [int(name) for name in hidden if name.isdecimal()]

    def _taken(self, version: int) -> VersionTakenError:
        what = "was withdrawn from" if version in self._withdrawn() else "exists in"
        return VersionTakenError(
            f"version {version} {what} {self.path}, and a number always means the same model; "
            "omit --version to take the next free number"
        )


def _room_for_staging(folder: Path) -> Path:
    model = folder.resolve()
    repository = model.parent
    beside = repository.parent
    apart = _mount_points().intersection({str(model), str(repository)})  # no rename across them
    if apart or model.stat().st_dev != beside.stat().st_dev or not os.access(beside, os.W_OK):
        return folder
    return beside


def _mount_points() -> set[str]:
    """All mount points, including bind mounts, which `os.path.ismount` does not see."""
    table = Path("/proc/self/mountinfo")
    if not table.is_file():
        return set()
    return {line.split()[4] for line in table.read_text().splitlines()}


def _write(file: Path, content: bytes) -> None:
    """Write a file whole or not at all: a server that polls may read it at any time."""
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(content)
        part.chmod(0o644)
        part.rename(file)
    finally:
        part.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Flush to disk the data of a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
