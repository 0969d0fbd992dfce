"""Parquet in and out: the extra `[parquet]`."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from reward_client.bulk.errors import OutputError
from reward_client.bulk.lines import FIELDS, Item, Rejection, from_fields
from reward_client.errors import InvalidInputError, RewardError

try:
    import pyarrow as pa
    from pyarrow import parquet as pq
except ImportError as error:  # absent, or one that does not go with this NumPy and says so
    raise RewardError(
        f"Parquet needs the package 'pyarrow' ({error}); install it with "
        "pip install 'gpt2-reward[parquet]', beside the extra serve with 'pyarrow<26'"
    ) from error

ROWS_A_BATCH = 1024
ROWS_A_GROUP = 65_536  # of what is written

_INT64 = range(-(2**63), 2**63)


class ParquetSource:
    """A Parquet file; a line is a row of it, and positions count them.

    Args:
        path: of the file.

    Raises:
        InvalidInputError: it is no Parquet file, or has none of the columns that are scored.
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = pq.ParquetFile(path)
        except pa.ArrowInvalid as error:
            raise InvalidInputError(f"cannot read {path} as Parquet: {error}") from error
        self._columns = [name for name in FIELDS if name in self._file.schema_arrow.names]
        if not set(self._columns) & {"text", "candidate", "candidates"}:
            self._file.close()
            raise InvalidInputError(
                f'{path} has no column "text", "candidate" or "candidates"; rename one'
            )
        self._line = 0
        self.total = self._file.metadata.num_rows

    def skip(self, n_lines: int) -> int:
        """As `Source.skip`; whole row groups are passed over unread."""
        if n_lines > self.total:
            raise OutputError(
                f"the output has line {n_lines} of {self._path}, which ends at {self.total}: "
                "it belongs to another input"
            )
        self._line = n_lines
        return n_lines

    def __iter__(self) -> Iterator[tuple[Item, int]]:
        try:
            for batch in self._batches():
                for item in _items(batch, self._line + 1):
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
        """From the next line on."""
        first, before = 0, self._line
        while before and before >= (n_rows := self._file.metadata.row_group(first).num_rows):
            first, before = first + 1, before - n_rows
            if first == self._file.num_row_groups:
                return
        groups = range(first, self._file.num_row_groups)
        for batch in self._file.iter_batches(ROWS_A_BATCH, groups, columns=self._columns):
            if before < batch.num_rows:
                yield batch.slice(before)
            before = max(before - batch.num_rows, 0)


def _items(batch: pa.RecordBatch, line: int) -> list[Item]:
    try:
        records = batch.to_pylist()
    except UnicodeDecodeError:  # somewhere; each by itself then
        return [_item(batch.slice(index, 1), line + index) for index in range(batch.num_rows)]
    return [_from_columns(fields, line + index) for index, fields in enumerate(records)]


def _item(batch: pa.RecordBatch, line: int) -> Item:
    try:
        (fields,) = batch.to_pylist()
    except UnicodeDecodeError:
        return Rejection(line, "not UTF-8")
    return _from_columns(fields, line)


def _from_columns(fields: dict[str, object], line: int) -> Item:
    """A column that is null is a field that is not there."""
    return from_fields(line, {name: value for name, value in fields.items() if value is not None})


def convert(working: Path, output: Path) -> None:
    """The working file as Parquet, in place at once; then the working file is removed.

    Columns: `line` int64, `id` where the input had one, `reward` float32, `rewards` list of
    float32, `model_version` int64; those of `reward` and `rewards` that do not apply are null.

    Raises:
        OutputError: it cannot be written.
    """
    schema = pa.schema(
        [
            ("line", pa.int64()),
            *_id_field(working),
            ("reward", pa.float32()),
            ("rewards", pa.list_(pa.float32())),
            ("model_version", pa.int64()),
        ]
    )
    new = output.with_name(output.name + ".new")
    try:
        with pq.ParquetWriter(new, schema) as writer:
            records = _records(working)
            while group := list(islice(records, ROWS_A_GROUP)):
                writer.write_table(
                    pa.Table.from_pylist([_fit(one, schema) for one in group], schema)
                )
        new.replace(output)
        working.unlink()
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error}; run the same command again") from error


def n_rows_of(path: Path) -> int:
    """Rows of a Parquet file.

    Raises:
        OutputError: it cannot be read.
    """
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError) as error:
        raise OutputError(f"cannot read {path}: {error}") from error


def _records(working: Path) -> Iterator[dict[str, object]]:
    with working.open("rb") as file:
        yield from map(json.loads, file)


def _id_field(working: Path) -> list[tuple[str, pa.DataType]]:
    """No column without ids; int64, float64 or string where all are; else strings of JSON."""
    kinds = {_kind(one["id"]) for one in _records(working) if "id" in one}
    if not kinds:
        return []
    kinds -= {"null"}
    types = {"int64": pa.int64(), "float": pa.float64(), "str": pa.string()}
    return [("id", types.get(kinds.pop(), _JSON) if len(kinds) == 1 else _JSON)]


_JSON = pa.large_string()  # told from strings that are meant as they are


def _kind(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value in _INT64:
        return "int64"
    return "null" if value is None else type(value).__name__


def _fit(record: dict[str, object], schema: pa.Schema) -> dict[str, object]:
    if "id" in record and record["id"] is not None and schema.field("id").type == _JSON:
        return {**record, "id": json.dumps(record["id"])}
    return record
