"""Scoring lines that were set aside, once they are fixed, without starting over.

They are scored into a file of their own, as any input is, and merged into the output by their
numbers. Each file is replaced atomically, first the output and then the list of rejected lines;
after a kill in between, the next run has some lines twice, and drops one of each.
"""

import heapq
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from reward_client.bulk.errors import OutputError
from reward_client.bulk.identity import Identity
from reward_client.bulk.job import Job
from reward_client.bulk.output import line_of
from reward_client.bulk.streams import open_stream

_BEGIN = b'{"line": '


def job_of(job: Job) -> Job:
    """The job that scores only the rejected lines.

    Raises:
        OutputError: their list cannot be read.
    """
    try:
        with job.rejected.open("rb") as file:
            numbers = frozenset(int(json.loads(line)["line"]) for line in file)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise OutputError(f"cannot read {job.rejected}: {error}") from error
    output = job.beside(".again" + (job.output.suffix if job.converts else ".jsonl"))
    return replace(
        job, output=output, lines=numbers, side=None, trust_input=False, rescore_rejected=False
    )


def discard_another(again: Job, identity: Identity) -> None:
    """Remove what an earlier run left if it scored other lines, or the input has since changed."""
    if again.meta.exists():
        try:
            identity.check(again)
        except OutputError:
            discard(again)


def discard(again: Job) -> None:
    """Remove the job's files."""
    for path in (again.working, again.rejected, again.meta):
        path.unlink(missing_ok=True)


def merge(job: Job, again: Job) -> None:
    """Put the lines that are now scored where they belong, and list the others as rejected.

    If the output is converted, the merged lines become the working file again.

    Raises:
        OutputError: a file cannot be read or written.
    """
    try:
        merged = job.beside(".merged")
        with merged.open("wb") as file:
            file.writelines(_merged(_lines(job), _own_lines(again.working)))
        merged.replace(job.working)
        again.rejected.replace(job.rejected)
    except OSError as error:
        raise OutputError(f"cannot write {job.output}: {error.strerror or error}") from error


def _merged(scored: Iterable[bytes], fixed: Iterable[bytes]) -> Iterator[bytes]:
    last = 0
    for line in heapq.merge(scored, fixed, key=_number):
        if _number(line) != last:
            yield line
        last = _number(line)


def _number(line: bytes) -> int:
    return int(line[len(_BEGIN) : line.index(b",")])


def _lines(job: Job) -> Iterator[bytes]:
    """The lines of the output as they were in the working file."""
    if job.working.exists():
        return _own_lines(job.working)
    return _parquet_lines(job) if job.to_parquet else _own_lines(job.output)


def _own_lines(path: Path) -> Iterator[bytes]:
    with open_stream(path).file as file:
        yield from file


def _parquet_lines(job: Job) -> Iterator[bytes]:
    from pyarrow import parquet as pq  # noqa: PLC0415  # an extra

    with pq.ParquetFile(job.output) as file:
        names = file.schema_arrow.names
        copied = [] if job.takes_from_input else [one for one in job.columns.copied if one in names]
        is_json = {
            one for one in copied if str(file.schema_arrow.field(one).type) == "large_string"
        }
        for batch in file.iter_batches(
            columns=["line", *copied, "reward", "rewards", "model_version"]
        ):
            for record in batch.to_pylist():
                yield _line(record, copied, is_json)


def _line(record: dict[str, Any], copied: list[str], is_json: set[str]) -> bytes:
    values = {
        name: json.loads(record[name])
        if name in is_json and record[name] is not None
        else record[name]
        for name in copied
    }
    is_group = record["rewards"] is not None
    rewards = record["rewards"] if is_group else [record["reward"]]
    return line_of(record["line"], values, rewards, record["model_version"], is_group=is_group)
