"""CSV with a header: one item per record, every value a string."""

import codecs
import csv
from collections.abc import Iterator

from reward_client.bulk.job import Job
from reward_client.bulk.lines import Item, Rejection, from_fields
from reward_client.bulk.source import BOM, MAX_LINE_BYTES, too_short, unreadable
from reward_client.bulk.streams import UNREADABLE, Stream
from reward_client.errors import InvalidInputError


class CsvSource:
    """Records of a CSV file that follows RFC 4180; a value may hold line breaks.

    A line is a record, and 1 is the first after the header; positions are bytes.

    Args:
        job: says which columns are read.
        stream: what to read, and to close in the end.

    Raises:
        InvalidInputError: there is no header, or it lacks a column; while iterating, what
            follows is not CSV.
    """

    def __init__(self, job: Job, stream: Stream) -> None:
        self._path = job.input
        self._columns = job.columns
        self._stream = stream
        self._line = 0
        self.total = stream.total
        self.head = stream.head
        csv.field_size_limit(MAX_LINE_BYTES)  # for the whole module; the default is 128 KiB
        self._records = csv.reader(self._texts(), strict=True)
        header = self._next()
        if not header:
            raise InvalidInputError(f"{self._path} has no CSV header in its first line")
        if doubled := len(header) - len(set(header)):
            raise InvalidInputError(
                f"the header of {self._path} names {doubled} columns twice; rename them"
            )
        self._names = header
        self._columns.check(header, self._path)
        self._optional = set(self._columns.names()) & set(self._columns.scored(header))
        self._line = 0

    def skip(self, n_lines: int) -> int:
        """Like `Source.skip`."""
        while self._line < n_lines:
            if self._next() is None:
                raise too_short(self._path, n_lines, self._line)
        return self._stream.position()

    def __iter__(self) -> Iterator[tuple[Item, int]]:
        while (record := self._next()) is not None:
            yield self._item(record), self._stream.position()

    def close(self) -> None:
        """Close the file."""
        self._stream.file.close()

    def _item(self, record: list[str]) -> Item:
        if not record:
            return Rejection(self._line, "blank")
        if len(record) != len(self._names):
            reason = f"has {len(record)} fields, but the header has {len(self._names)}"
            return Rejection(self._line, reason)
        fields = {
            name: None if not value and name in self._optional else value  # CSV has no null
            for name, value in zip(self._names, record, strict=True)
        }
        # a byte that is not UTF-8 has become a lone surrogate, which from_fields refuses
        return from_fields(self._line, fields, self._columns)

    def _next(self) -> list[str] | None:
        """The next record; None at the end."""
        try:
            record = next(self._records, None)
        except csv.Error as error:  # then it is unknown where the next record begins
            raise InvalidInputError(
                f"{self._path} is not valid CSV at or before line {self._records.line_num} of "
                f"the file: {error}"
            ) from error
        except UNREADABLE as error:
            raise unreadable(self._path, self._line, error) from error
        if record is not None:
            self._line += 1
        return record

    def _texts(self) -> Iterator[str]:
        first = True
        while data := self._stream.file.readline(MAX_LINE_BYTES + 1):
            yield codecs.decode(
                data.removeprefix(BOM) if first else data, "utf-8", "surrogateescape"
            )
            first = False
