"""Hidden folders in which a version is written before it is renamed into place.

An export holds the lock of its folder while it runs. A folder whose lock is free was left by an
export that was killed, and the next export removes it. On a file system that cannot lock
folders, NFS for example, none is removed.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from reward_contract import MODEL_NAME

PREFIX = f".{MODEL_NAME}-staging-"  # hidden from Triton, and not used by other programs


def sweep(room: Path) -> None:
    """Remove what killed exports have left in a folder."""
    for path in room.glob(f"{PREFIX}*"):
        # locked by a running export, already gone, another user's, or there are no locks here
        with contextlib.suppress(OSError):
            lock = _lock(path)
            try:
                shutil.rmtree(path)
            finally:
                os.close(lock)


@contextlib.contextmanager
def staged_in(room: Path) -> Iterator[Path]:
    """An empty folder in another one, removed at the end unless it was renamed.

    Raises:
        OSError: the folder cannot be made.
    """
    path, lock = _make(room)
    try:
        path.chmod(0o755)  # mkdtemp hides it from the server's user
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        if lock is not None:
            os.close(lock)


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait until no other export publishes into the model's folder, and keep others waiting."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # network file systems that cannot lock folders
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make(room: Path) -> tuple[Path, int | None]:
    """Make a folder, and return it with its lock; None if the file system has no locks."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=room))
        try:
            lock = _lock(path)
        except (FileNotFoundError, BlockingIOError):
            continue  # another export removed it before it was locked
        except OSError:
            return path, None
        if path.exists():
            return path, lock
        os.close(lock)


def _lock(folder: Path) -> int:
    """A descriptor that holds the folder's lock until it is closed, or its process ends.

    Raises:
        BlockingIOError: another one holds it.
        OSError: the folder is gone, or the file system has no locks.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
