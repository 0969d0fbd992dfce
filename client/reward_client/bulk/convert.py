"""Converts a run's working file into the output that was asked for, atomically."""

import bisect
import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from reward_client.bulk.errors import OutputError
from reward_client.bulk.identity import made_by
from reward_client.bulk.job import Job
from reward_client.bulk.streams import open_stream, pyarrow_for

ROWS_A_GROUP = 65_536  # of Parquet
GZIP_LEVEL = 6

_COPY_BYTES = 1 << 20
_INT64 = range(-(2**63), 2**63)
_EXACT_IN_FLOAT64 = range(-(2**53), 2**53 + 1)


def converter(job: Job) -> Callable[[], None] | None:
    """A function that turns the working file into the output; None if the two are the same file.

    Parquet has the columns `line` int64, what is copied, `reward` float32, `rewards` list of
    float32, `model_version` int64; whichever of `reward` and `rewards` does not apply is null.
    Its metadata `gpt2_reward` is JSON that says what gave the rewards.

    Raises:
        RewardError: the output needs an extra that is not installed. The returned function
            raises OutputError if it cannot write.
    """
    if not job.converts:
        return None
    write: Callable[[Job, Path], None] = _write_gzip
    if job.to_parquet:
        pyarrow_for("Parquet")
        write = _write_parquet
    elif job.output.suffix == ".zst":
        pyarrow_for("Zstandard")
        write = _write_zstd

    def convert() -> None:
        new = job.beside(".new")
        try:
            write(job, new)
            new.replace(job.output)
            job.working.unlink()
        except OSError as error:
            raise OutputError(
                f"cannot write {job.output}: {error}; run the same command again"
            ) from error

    return convert


def n_lines_of(job: Job) -> int:
    """Number of lines in an output that has been converted.

    Raises:
        OutputError: the output cannot be read.
    """
    try:
        if job.to_parquet:
            from pyarrow import parquet as pq  # noqa: PLC0415  # an extra

            return int(pq.read_metadata(job.output).num_rows)
        with open_stream(job.output).file as file:
            return sum(1 for _ in file)
    except (OSError, EOFError, ValueError) as error:
        raise OutputError(f"cannot read {job.output}: {error}") from error


def _write_gzip(job: Job, new: Path) -> None:
    with (
        job.working.open("rb") as working,
        new.open("wb") as raw,
        # neither name nor time: the same rewards give the same bytes
        gzip.GzipFile("", "wb", GZIP_LEVEL, raw, mtime=0) as packed,
    ):
        shutil.copyfileobj(working, packed, _COPY_BYTES)


def _write_zstd(job: Job, new: Path) -> None:
    with (
        job.working.open("rb") as working,
        pyarrow_for("Zstandard").CompressedOutputStream(str(new), "zstd") as packed,
    ):
        shutil.copyfileobj(working, cast("BinaryIO", packed), _COPY_BYTES)


def _write_parquet(job: Job, new: Path) -> None:
    import pyarrow as pa  # noqa: PLC0415  # an extra
    from pyarrow import parquet as pq  # noqa: PLC0415

    own = [
        ("line", pa.int64()),
        *([] if job.takes_from_input else _copied_fields(job)),
        ("reward", pa.float32()),
        ("rewards", pa.list_(pa.float32())),
        ("model_version", pa.int64()),
    ]
    with InputColumns(job) as copied:
        written = pa.schema(own)
        schema = written
        for field in reversed(copied.fields):
            schema = schema.insert(1, field)
        schema = schema.with_metadata({"gpt2_reward": json.dumps(made_by(job))})
        with pq.ParquetWriter(new, schema) as writer:
            records = _records(job.working)
            while group := list(islice(records, ROWS_A_GROUP)):
                table = pa.Table.from_pylist([_fit(one, written) for one in group], written)
                arrays = copied.take(table["line"].to_pylist())
                for field, array in reversed(list(zip(copied.fields, arrays, strict=True))):
                    table = table.add_column(1, field, array)
                writer.write_table(table)


class InputColumns:
    """The columns that a Parquet output takes from its input, for ascending lines.

    Args:
        job: says which input; nothing is taken from it if the working file has everything.

    Attributes:
        fields: names and types of the columns.
    """

    def __init__(self, job: Job) -> None:
        import pyarrow as pa  # noqa: PLC0415  # an extra
        from pyarrow import parquet as pq  # noqa: PLC0415

        self._pa = pa
        self.fields: list[Any] = []
        self._file = pq.ParquetFile(job.input) if job.takes_from_input else None
        if self._file:
            schema = self._file.schema_arrow
            names = [name for name in job.columns.copied if name in schema.names]
            self.fields = [schema.field(name).remove_metadata() for name in names]
            self._batches = self._file.iter_batches(ROWS_A_GROUP, columns=names)
        self._batch: Any = None
        self._first = self._end = 1

    def __enter__(self) -> "InputColumns":
        return self

    def __exit__(self, *error: object) -> None:
        if self._file:
            self._file.close()

    def take(self, lines: list[int]) -> list[Any]:
        """The values of the next lines, one array per field."""
        if not self.fields:
            return []
        pieces = []
        while lines:
            while lines[0] >= self._end:
                self._batch = next(self._batches)
                self._first, self._end = self._end, self._end + self._batch.num_rows
            n_here = bisect.bisect_left(lines, self._end)
            pieces.append(
                self._batch.take(self._pa.array([n - self._first for n in lines[:n_here]]))
            )
            lines = lines[n_here:]
        table = self._pa.Table.from_batches(pieces)
        return [table[field.name] for field in self.fields]


def _records(working: Path) -> Iterator[dict[str, Any]]:
    with working.open("rb") as file:
        yield from map(json.loads, file)


def _copied_fields(job: Job) -> list[tuple[str, Any]]:
    """Copied fields that some line has, with the type of all values, or as strings of JSON."""
    import pyarrow as pa  # noqa: PLC0415  # an extra

    kinds: dict[str, set[str]] = {}
    for record in _records(job.working):
        for name in job.columns.copied:
            if name in record:
                kinds.setdefault(name, set()).add(_kind(record[name]))
    types = {
        frozenset({"int"}): pa.int64(),
        frozenset({"int64"}): pa.int64(),
        frozenset({"int", "int64"}): pa.int64(),
        frozenset({"float"}): pa.float64(),
        frozenset({"int", "float"}): pa.float64(),
        frozenset({"str"}): pa.string(),
        frozenset({"bool"}): pa.bool_(),
    }
    # large_string tells strings of JSON from plain strings
    return [
        (name, types.get(frozenset(kinds[name] - {"null"}), pa.large_string()))
        for name in job.columns.copied
        if name in kinds
    ]


def _kind(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        if value in _EXACT_IN_FLOAT64:
            return "int"
        return "int64" if value in _INT64 else "big"
    return "null" if value is None else type(value).__name__


def _fit(record: dict[str, Any], schema: Any) -> dict[str, Any]:  # noqa: ANN401  # untyped
    """The record with the values of JSON columns written as JSON."""
    for field in schema:
        if str(field.type) == "large_string" and record.get(field.name) is not None:
            record[field.name] = json.dumps(record[field.name])
    return record
