"""Files as streams of bytes, decompressed if necessary."""

import gzip
import io
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from reward_client.errors import RewardError

STDIN = Path("-")
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
PARQUET = b"PAR1"
UNREADABLE = (OSError, EOFError, zlib.error)
"""What reading a stream raises if a file is damaged or cut short, or a disk fails."""

HEAD_BYTES = 1 << 16  # of a line of standard input

_BUFFER = 1 << 18


@dataclass(frozen=True, slots=True)
class Stream:
    """An input to read line by line.

    Attributes:
        file: what it holds, decompressed.
        total: size of the file as stored, in bytes; 0 for standard input.
        position: tells how many of these bytes have been read.
        head: the first two lines of standard input, which cannot be read twice; else empty.
    """

    file: BinaryIO
    total: int
    position: Callable[[], int]
    head: bytes = b""


def open_stream(path: Path) -> Stream:
    """Open a file, decompressed if its first bytes say that it is gzip or Zstandard.

    Args:
        path: the file; `-` is standard input, which is never decompressed.

    Raises:
        OSError: the file cannot be opened.
        RewardError: it is Zstandard, and the extra that reads it is not installed.
    """
    if path == STDIN:
        stdin = sys.stdin.buffer
        head = stdin.readline(HEAD_BYTES) + stdin.readline(HEAD_BYTES)
        return Stream(
            io.BufferedReader(cast("io.RawIOBase", _Again(head, stdin))), 0, lambda: 0, head
        )
    raw = io.FileIO(path)
    total = path.stat().st_size
    try:
        magic = raw.read(4)
        raw.seek(0)
        if magic.startswith(GZIP):
            return Stream(io.BufferedReader(_Gzip(raw), _BUFFER), total, raw.tell)
        if magic.startswith(ZSTD):
            return Stream(_zstd(raw), total, raw.tell)
    except BaseException:
        raw.close()
        raise
    return Stream(io.BufferedReader(raw, _BUFFER), total, raw.tell)


class _Again(io.RawIOBase):
    """What was already read from a stream, then the rest of it."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        """Return True: it can be read."""
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]  # any buffer
        """Read as much as one read of the stream gives."""
        if self._head:
            piece, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        else:
            piece = self._rest.read1(len(buffer))  # type: ignore[attr-defined]  # buffered
        buffer[: len(piece)] = piece
        return len(piece)


class _Gzip(gzip.GzipFile):
    """A gzip stream that also closes the file it reads."""

    def __init__(self, raw: io.FileIO) -> None:
        super().__init__(fileobj=raw, mode="rb")
        self._raw_file = raw

    def close(self) -> None:
        """Close both."""
        super().close()
        self._raw_file.close()


def _zstd(raw: io.FileIO) -> BinaryIO:
    pa = pyarrow_for("Zstandard")
    return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd"), _BUFFER)


def pyarrow_for(what: str) -> Any:  # noqa: ANN401  # untyped
    """The package `pyarrow`.

    Raises:
        RewardError: the package cannot be imported; the message says what needs it.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415  # an extra
    except ImportError as error:  # missing, or incompatible with this NumPy, and says so
        raise RewardError(
            f"{what} needs the package 'pyarrow' ({error}); install it with "
            "pip install 'gpt2-reward[parquet]', and with the extra serve also 'pyarrow<26'"
        ) from error
    return pa
