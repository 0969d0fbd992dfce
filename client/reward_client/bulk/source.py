"""Reading the input: one line at a time, from any line on."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from reward_client.bulk import lines
from reward_client.bulk.errors import OutputError
from reward_client.bulk.job import Job
from reward_client.bulk.lines import Item, Rejection
from reward_client.errors import InvalidInputError

MAX_LINE_BYTES = 16 * 1024 * 1024  # a line is held in memory as a whole

HEAD_BYTES = 4096
BOM = b"\xef\xbb\xbf"  # some editors put it in front of the first line


class Source(Protocol):
    """An input. Positions are in a unit of its own, from 0 to `total`."""

    @property
    def total(self) -> int:
        """The last position."""

    def skip(self, n_lines: int) -> int:
        """Start behind the first `n_lines`. -> the position there.

        Raises:
            OutputError: the input has fewer.
        """

    def __iter__(self) -> Iterator[tuple[Item, int]]:
        """Each line from there on, and the position behind it."""

    def close(self) -> None:
        """Let go of the file."""


def open_source(job: Job) -> Source:
    """The job's input.

    Raises:
        InvalidInputError: it cannot be read, or is not what its format says.
        RewardError: Parquet is asked for without its extra.
    """
    if not job.input.is_file():
        raise InvalidInputError(f"cannot read {job.input}: no regular file, which resuming needs")
    parse = lines.from_text if job.input_format == "text" else lines.from_json
    try:
        if job.input_format == "parquet":
            from reward_client.bulk.parquet import (  # noqa: PLC0415  # an extra
                ParquetSource,
            )

            return ParquetSource(job.input)
        _check_head(job)
        return LineSource(job.input, parse)
    except OSError as error:
        raise InvalidInputError(f"cannot read {job.input}: {error.strerror or error}") from error


def _check_head(job: Job) -> None:
    """Tell at once what would otherwise set every line aside."""
    with job.input.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InvalidInputError(
            f"{job.input} is UTF-16; convert it first: iconv -f UTF-16 -t UTF-8"
        )
    if head.startswith((b"PAR1", b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
        raise InvalidInputError(
            f"{job.input} is Parquet or compressed, and not {job.input_format}; read Parquet with "
            "--format parquet, and unpack the others first"
        )
    if job.input_format == "jsonl" and head.removeprefix(BOM).lstrip().startswith(b"["):
        raise InvalidInputError(
            f"{job.input} is a JSON array; write one object per line: jq -c '.[]'"
        )


class LineSource:
    """A file with a row a line; positions are bytes.

    Args:
        path: of the file.
        parse: a line's number and bytes to a row.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path, parse: Callable[[int, bytes], Item]) -> None:
        self._path = path
        self._parse = parse
        self._file = io.BufferedReader(io.FileIO(path), 1 << 18)
        self._line = 0
        self._position = 0
        self.total = path.stat().st_size

    def skip(self, n_lines: int) -> int:
        """As `Source.skip`."""
        while self._line < n_lines:
            if self._next() is None:
                raise OutputError(
                    f"the output has line {n_lines} of {self._path}, which ends at {self._line}: "
                    "it belongs to another input"
                )
        return self._position

    def __iter__(self) -> Iterator[tuple[Item, int]]:
        while (data := self._next()) is not None:
            if len(data) > MAX_LINE_BYTES:
                reason = f"longer than {MAX_LINE_BYTES} bytes"
                yield Rejection(self._line, reason), self._position
            else:
                yield self._parse(self._line, data), self._position

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _next(self) -> bytes | None:
        """The next line, or more than `MAX_LINE_BYTES` of it; None at the end."""
        data = piece = self._piece()
        if not data:
            return None
        while len(piece) > MAX_LINE_BYTES and not piece.endswith(b"\n"):
            piece = self._piece()
        self._line += 1
        return data.removeprefix(BOM) if self._line == 1 else data

    def _piece(self) -> bytes:
        try:
            piece = self._file.readline(MAX_LINE_BYTES + 1)
        except OSError as error:
            raise InvalidInputError(
                f"cannot read {self._path} after line {self._line}: {error.strerror or error}"
            ) from error
        self._position += len(piece)
        return piece
