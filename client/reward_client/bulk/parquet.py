"""Reading Parquet, with the extra `[parquet]`."""

import math
from collections.abc import Iterator
from dataclasses import replace

from reward_client.bulk.columns import CANDIDATES, ID, Columns
from reward_client.bulk.job import Job
from reward_client.bulk.lines import Item, Rejection, from_fields
from reward_client.bulk.source import too_short
from reward_client.bulk.streams import pyarrow_for
from reward_client.errors import InvalidInputError

pyarrow_for("Parquet")  # says which extra brings it

import pyarrow as pa  # noqa: E402  # only now
from pyarrow import parquet as pq  # noqa: E402

ROWS_A_BATCH = 1024


class ParquetSource:
    """A Parquet file; a line is a row of the file, and positions count rows.

    Args:
        job: says which file and columns.

    Raises:
        InvalidInputError: it is not a Parquet file, or a column is missing or of the wrong type.
        OSError: it cannot be opened.
    """

    head = b""

    def __init__(self, job: Job) -> None:
        self._path = job.input
        try:
            self._file = pq.ParquetFile(job.input)
        except pa.ArrowInvalid as error:
            raise InvalidInputError(f"cannot read {job.input} as Parquet: {error}") from error
        try:
            check_columns(job, self._file.schema_arrow)
        except InvalidInputError:
            self._file.close()
            raise
        # what the output takes from here at the end is not read for scoring
        self._columns = replace(job.columns, keep=()) if job.takes_from_input else job.columns
        there = set(self._file.schema_arrow.names)
        copied = () if job.takes_from_input else self._columns.copied
        self._copied = {name for name in copied if name in there}
        scored = self._columns.scored(there)
        self._names = list(dict.fromkeys([*scored, *(name for name in copied if name in there)]))
        self._nullable = self._copied - {ID, *scored}
        self._line = 0
        self.total = self._file.metadata.num_rows

    def skip(self, n_lines: int) -> int:
        """Like `Source.skip`; whole row groups are skipped unread."""
        if n_lines > self.total:
            raise too_short(self._path, n_lines, self.total)
        self._line = n_lines
        return n_lines

    def __iter__(self) -> Iterator[tuple[Item, int]]:
        try:
            for batch in self._batches():
                for item in self._items(batch, self._line + 1):
                    self._line += 1
                    yield item, self._line
        except (pa.ArrowException, OSError) as error:
            raise InvalidInputError(
                f"cannot read {self._path} after row {self._line}: {error}"
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _batches(self) -> Iterator[pa.RecordBatch]:
        """Batches of rows from the next line on."""
        first, before = 0, self._line
        while before and before >= (n_rows := self._file.metadata.row_group(first).num_rows):
            first, before = first + 1, before - n_rows
            if first == self._file.num_row_groups:
                return
        groups = range(first, self._file.num_row_groups)
        for batch in self._file.iter_batches(ROWS_A_BATCH, groups, columns=self._names):
            if before < batch.num_rows:
                yield batch.slice(before)
            before = max(before - batch.num_rows, 0)

    def _items(self, batch: pa.RecordBatch, line: int) -> list[Item]:
        try:
            records = batch.to_pylist()
        except UnicodeDecodeError:  # in some row: convert each by itself
            return [self._item(batch.slice(i, 1), line + i) for i in range(batch.num_rows)]
        return [self._from_columns(fields, line + i) for i, fields in enumerate(records)]

    def _item(self, batch: pa.RecordBatch, line: int) -> Item:
        try:
            (fields,) = batch.to_pylist()
        except UnicodeDecodeError:
            return Rejection(line, "not UTF-8")
        return self._from_columns(fields, line)

    def _from_columns(self, fields: dict[str, object], line: int) -> Item:
        """The line of a row; null means that the field is missing, unless it is only kept."""
        for name in self._copied - {ID}:
            fields[name] = json_value(fields[name])
        known = {
            name: value
            for name, value in fields.items()
            if value is not None or name in self._nullable
        }
        return from_fields(line, known, self._columns)


def check_columns(job: Job, schema: pa.Schema) -> None:
    """Refuse a file before its first row is read.

    Raises:
        InvalidInputError: a column is missing, or of the wrong type.
    """
    columns = job.columns
    columns.check(schema.names, job.input)
    for name in columns.scored(schema.names):
        kind = schema.field(name).type
        is_chat = columns.is_chat(name)
        if not (
            _is_string(kind) or _is_messages(kind) if is_chat else _is_text(kind, name, columns)
        ):
            wanted = 'a list of messages with "role" and "content"' if is_chat else "string"
            raise InvalidInputError(
                f'column "{name}" of {job.input} is {kind}, not {wanted}; cast it, or name another'
            )
    for name in [one for one in columns.copied if one in schema.names]:
        kind = schema.field(name).type
        if not (job.takes_from_input or (_is_id(kind) if name == ID else _is_json(kind))):
            raise InvalidInputError(
                f'column "{name}" of {job.input} is {kind}, which JSON does not have; write '
                "Parquet, or cast or rename it"
            )


def json_value(value: object) -> object:
    """A kept value as JSON can hold it: numbers that are not finite become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(name): json_value(one) for name, one in value.items()}
    return [json_value(one) for one in value] if isinstance(value, list) else value


def _is_messages(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return bool(pa.types.is_null(kind))
    one = kind.value_type
    return bool(
        pa.types.is_null(one)  # none has a message
        or (pa.types.is_struct(one) and min(map(one.get_field_index, ("role", "content"))) >= 0)
    )


def _is_text(kind: pa.DataType, name: str, columns: Columns) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if is_list and name in {columns.candidate, CANDIDATES}:
        return _is_string(kind.value_type)
    return pa.types.is_null(kind) or (
        _is_string(kind) and not (name == CANDIDATES and columns.candidate != CANDIDATES)
    )


def _is_string(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_string(kind.value_type)
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or str(kind) == "string_view"  # newer releases
    )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_float32(kind) or pa.types.is_float64(kind))


def _is_id(kind: pa.DataType) -> bool:
    return _is_string(kind) or _is_number(kind) or bool(pa.types.is_null(kind))


def _is_json(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_json(kind.value_type)
    if pa.types.is_struct(kind):
        return all(_is_json(kind.field(i).type) for i in range(kind.num_fields))
    return _is_id(kind) or bool(pa.types.is_boolean(kind))
