"""Puts a version into the model repository, whole or not at all.

Everything is written into a hidden folder, flushed to disk, and renamed into place in one
step. The hidden folder stands beside the repository: inside the model's, a server that polls
would load the version it serves again whenever something is written; inside the repository, it
would take the folder for a model. Where the repository is a volume of its own, only the model's
folder is left.
"""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from reward_contract import MODEL_NAME
from reward_export.errors import PublishError

CONFIG_NAME = "config.pbtxt"
_WITHDRAWN = ".withdrawn-"  # hidden from Triton, which reads numbers only


def model_folder(repository: Path) -> Path:
    """The folder of the reward model in a repository.

    Raises:
        PublishError: the repository is not there, or does not configure the model.
    """
    if not repository.is_dir():
        raise PublishError(f"there is no model repository at {repository}")
    folder = repository / MODEL_NAME
    if not (folder / CONFIG_NAME).is_file():
        raise PublishError(
            f"{repository} has no {MODEL_NAME}/{CONFIG_NAME}; copy the project's "
            f"model_repository/{MODEL_NAME}/{CONFIG_NAME} there first"
        )
    return folder


def published_versions(folder: Path) -> list[int]:
    """Version numbers in a model's folder, ascending."""
    return sorted(
        int(path.name)
        for path in folder.iterdir()
        if path.is_dir() and path.name.isdecimal() and not path.name.startswith("0")
    )


def withdraw(folder: Path) -> tuple[Path, Path]:
    """Hide the newest version from Triton, in one step, and keep its files.

    Its number is not given out again: clients have seen it answer.

    Returns:
        where the withdrawn version is now, and the version that is the newest now.

    Raises:
        PublishError: there is none before it, or the folder cannot be written.
    """
    *earlier, newest = published_versions(folder) or [0]
    if not earlier:
        raise PublishError(
            f"{folder} has no version before {newest or 'the first'}; publish one to go back to"
        )
    withdrawn = folder / f"{_WITHDRAWN}{newest}"
    try:
        (folder / str(newest)).rename(withdrawn)
        _flush_folder(folder)
    except OSError as error:
        raise PublishError(
            f"cannot rename {folder / str(newest)} to {withdrawn.name}: {error.strerror}"
        ) from error
    return withdrawn, folder / str(earlier[-1])


def check_version(folder: Path, version: int, *, overwrite: bool) -> None:
    """Refuse a version number that cannot be taken.

    Raises:
        PublishError: it is below 1, or exists and `overwrite` is False.
    """
    if version < 1:
        raise PublishError(f"version {version} is not served by Triton; versions begin at 1")
    if not overwrite and (folder / str(version)).exists():
        raise PublishError(
            f"version {version} exists in {folder}; leave --version out for the next free "
            "number, or ask for --overwrite"
        )


@contextlib.contextmanager
def staging(folder: Path, *, needed_bytes: int) -> Iterator[Path]:
    """An empty hidden folder on the versions' disk, gone at the end unless published.

    Args:
        folder: the model's folder.
        needed_bytes: what will be written, checked against the free space beforehand.

    Raises:
        PublishError: the disk is or runs full, or the folder cannot be written.
    """
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise PublishError(
            f"{folder} has {free / 1e6:.0f} MB free; the version needs {needed_bytes / 1e6:.0f} MB"
        )
    path: Path | None = None
    try:
        path = Path(tempfile.mkdtemp(prefix=".staging-", dir=_room_for_staging(folder)))
        path.chmod(0o755)  # mkdtemp hides it from the server's user
        yield path
    except OSError as error:
        raise PublishError(f"cannot write to {folder}: {error.strerror or error}") from error
    finally:
        if path is not None:
            shutil.rmtree(path, ignore_errors=True)


def _room_for_staging(folder: Path) -> Path:
    model = folder.resolve()
    repository = model.parent
    beside = repository.parent
    apart = _mount_points().intersection({str(model), str(repository)})  # no rename across them
    if apart or model.stat().st_dev != beside.stat().st_dev or not os.access(beside, os.W_OK):
        return folder
    return beside


def _mount_points() -> set[str]:
    """All of them, bind mounts too, which `os.path.ismount` does not see."""
    table = Path("/proc/self/mountinfo")
    if not table.is_file():
        return set()
    return {line.split()[4] for line in table.read_text().splitlines()}


def publish(staged: Path, folder: Path, *, version: int | None, overwrite: bool) -> Path:
    """Rename a staged folder into its version, and return where it is now.

    Args:
        staged: the folder that `staging` gave, complete.
        folder: the model's folder.
        version: the number; the next free one if None.
        overwrite: whether an existing version may be replaced.

    Raises:
        PublishError: the version exists and `overwrite` is False.
    """
    for path in staged.iterdir():
        path.chmod(0o644)  # whatever the umask: another user may serve it
    _flush(staged)
    if version is None:
        target = _rename_to_next(staged, folder)
    else:
        check_version(folder, version, overwrite=overwrite)
        target = folder / str(version)
        if target.exists():
            _replace(staged, target)
        else:
            staged.rename(target)
    _flush_folder(folder)
    return target


def _rename_to_next(staged: Path, folder: Path) -> Path:
    """Others may publish at the same time: whoever renames first has the number."""
    while True:
        target = folder / str(max(numbers_taken(folder), default=0) + 1)
        try:
            return staged.rename(target)
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                raise


def numbers_taken(folder: Path) -> list[int]:
    """Version numbers that are not given out again: published ones, and withdrawn ones."""
    hidden = (path.name.removeprefix(_WITHDRAWN) for path in folder.glob(f"{_WITHDRAWN}*"))
    return [*published_versions(folder), *(int(name) for name in hidden if name.isdecimal())]


def _replace(staged: Path, target: Path) -> None:
    """Two renames: between them, for some microseconds, the version is not there."""
    old = Path(tempfile.mkdtemp(prefix=".replaced-", dir=target.parent)) / target.name
    target.rename(old)
    try:
        staged.rename(target)
    except BaseException:  # Ctrl-C as well
        old.rename(target)
        old.parent.rmdir()
        raise
    shutil.rmtree(old.parent, ignore_errors=True)


def _flush(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    _flush_folder(folder)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
