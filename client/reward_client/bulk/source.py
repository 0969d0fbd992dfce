"""Reading the input: one line at a time, from any line on."""

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Protocol

from reward_client.bulk import lines
from reward_client.bulk.errors import OutputError
from reward_client.bulk.job import Job
from reward_client.bulk.lines import Item, Rejection
from reward_client.bulk.streams import GZIP, PARQUET, STDIN, UNREADABLE, ZSTD, Stream, open_stream
from reward_client.errors import InvalidInputError

MAX_LINE_BYTES = 16 * 1024 * 1024  # a line is held in memory as a whole

HEAD_BYTES = 1 << 16
BOM = b"\xef\xbb\xbf"  # some editors put it in front of the first line


class Source(Protocol):
    """An input. Positions are in a unit of its own, from 0 to `total`."""

    head: bytes
    """The same as `Stream.head`."""

    @property
    def total(self) -> int:
        """The last position; 0 if unknown."""

    def skip(self, n_lines: int) -> int:
        """Start after the first `n_lines` lines. -> the position there.

        Raises:
            OutputError: the input has fewer.
        """

    def __iter__(self) -> Iterator[tuple[Item, int]]:
        """Each line from the current position on, and the position after it."""

    def close(self) -> None:
        """Close the file."""


def open_source(job: Job) -> Source:
    """Open the job's input and check its columns.

    Raises:
        InvalidInputError: the input cannot be read, is not in its format, or lacks a column.
        RewardError: its format needs an extra that is not installed.
    """
    try:
        source = _opened(job)
    except UNREADABLE as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInputError(f"cannot read {job.input}: {reason}") from error
    if job.lines is not None:
        return _Chosen(source, job.lines.__contains__)
    return _Chosen(source, job.shard.has) if job.shard else source


def _opened(job: Job) -> Source:
    if job.input != STDIN and not job.input.is_file():
        raise InvalidInputError(f"cannot read {job.input}: it is not a regular file")
    if job.input_format == "parquet":
        from reward_client.bulk.parquet import ParquetSource  # noqa: PLC0415  # an extra

        return ParquetSource(job)
    if job.input != STDIN:
        with closing(open_stream(job.input).file) as file:
            _check_head(job, file.read(HEAD_BYTES))
    stream = open_stream(job.input)
    try:
        if job.input == STDIN:
            _check_head(job, stream.head)
        if job.input_format == "csv":
            from reward_client.bulk.csv_source import CsvSource  # noqa: PLC0415  # imports this one

            return CsvSource(job, stream)
    except BaseException:
        stream.file.close()
        raise
    if job.input_format == "text":
        return LineSource(job.input, stream, lines.from_text)
    return LineSource(job.input, stream, partial(lines.from_json, columns=job.columns))


def _check_head(job: Job, head: bytes) -> None:
    """Refuse at once an input whose every line would otherwise be set aside."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InvalidInputError(
            f"{job.input} is UTF-16; convert it first: iconv -f UTF-16 -t UTF-8"
        )
    if head.startswith((PARQUET, GZIP, ZSTD)):
        raise InvalidInputError(
            f"{job.input} is Parquet or compressed, not {job.input_format}; read Parquet with "
            "--format parquet, and decompress standard input and what is compressed twice"
        )
    if job.input_format == "jsonl":
        head = head.removeprefix(BOM)
        if head.lstrip().startswith(b"["):
            raise InvalidInputError(
                f"{job.input} is a JSON array; write one object per line: jq -c '.[]'"
            )
        _check_first_object(job, head)


def _check_first_object(job: Job, head: bytes) -> None:
    """Refuse an input whose first object lacks a named field or has an id that cannot be used."""
    for data in head.splitlines(keepends=True):
        try:
            fields = lines.parsed(data)
        except lines.MalformedError:
            continue
        if job.columns.are_named or job.columns.keep:
            job.columns.check(fields, f"the first line of {job.input}")
        try:
            lines.check_id(fields)
        except lines.MalformedError as error:
            raise InvalidInputError(
                f"the first line of {job.input}: {error}; rename the field to leave it out"
            ) from error
        return


class _Chosen:
    """Some lines of a source, which keep their numbers."""

    def __init__(self, source: Source, is_chosen: Callable[[int], bool]) -> None:
        self._source = source
        self._is_chosen = is_chosen
        self.total = source.total
        self.head = source.head
        self.skip = source.skip
        self.close = source.close

    def __iter__(self) -> Iterator[tuple[Item, int]]:
        for item, end in self._source:
            number = item.line if isinstance(item, Rejection) else item.number
            if self._is_chosen(number):
                yield item, end


class LineSource:
    """A stream with one item per line; positions are bytes.

    Args:
        path: what to call the stream.
        stream: what to read, and to close in the end.
        parse: makes an item from a line's number and bytes.
    """

    def __init__(self, path: Path, stream: Stream, parse: Callable[[int, bytes], Item]) -> None:
        self._path = path
        self._parse = parse
        self._stream = stream
        self._line = 0
        self.total = stream.total
        self.head = stream.head

    def skip(self, n_lines: int) -> int:
        """Like `Source.skip`."""
        while self._line < n_lines:
            if self._next() is None:
                raise too_short(self._path, n_lines, self._line)
        return self._stream.position()

    def __iter__(self) -> Iterator[tuple[Item, int]]:
        while (data := self._next()) is not None:
            if len(data) > MAX_LINE_BYTES:
                reason = f"longer than {MAX_LINE_BYTES} bytes"
                yield Rejection(self._line, reason), self._stream.position()
            else:
                yield self._parse(self._line, data), self._stream.position()

    def close(self) -> None:
        """Close the file."""
        self._stream.file.close()

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
            return self._stream.file.readline(MAX_LINE_BYTES + 1)
        except UNREADABLE as error:
            raise unreadable(self._path, self._line, error) from error


def too_short(path: Path, n_lines: int, n_found: int) -> OutputError:
    """The error for an input that has fewer lines than its output."""
    return OutputError(
        f"the output has line {n_lines} of {path}, which ends at line {n_found}: "
        "it belongs to another input"
    )


def unreadable(path: Path, line: int, error: Exception) -> InvalidInputError:
    """The error for an input that cannot be read any further."""
    reason = getattr(error, "strerror", None) or error
    return InvalidInputError(f"cannot read {path} after line {line}: {reason}")
