"""Bulk scoring of many rows: resident memory and rows per second, by the number of rows.

The command runs as users run it, against a `FakeServer` in another process, so that the figures
are the command's own and not a model's. Its output is checked against the input.

Whether memory stays flat shows in millions of rows, which take minutes and 4 GB of disk:

python -m reward_bench bulk --bulk-rows 5000000 --bulk-formats jsonl
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet as pq

from reward_bench.fake_server import fake_server
from reward_bench.processes import resident_mb, with_children
from reward_bench.suite import CLIENT, Report, Setting, Suite, option, say
from reward_bench.texts import all_dialogues

LOOK_EVERY_S = 0.5  # looking twenty times a second took a quarter of the speed
FORMATS = ("jsonl", "parquet")


@dataclass(frozen=True)
class Options:
    """How many rows, in which files."""

    rows: tuple[int, ...] = option(
        (100_000, 1_000_000), "numbers of rows to score", quick=(2_000,), kind=int
    )
    formats: tuple[str, ...] = option(FORMATS, "formats of input and output", choices=FORMATS)


def run(_setting: Setting, own: Options) -> Report:
    """Score every number of rows in every format."""
    report: Report = {}
    with tempfile.TemporaryDirectory() as folder, fake_server() as url:
        for form in own.formats:
            for n_rows in own.rows:
                source = Path(folder) / f"input-{n_rows}.{form}"
                write_input(source, n_rows)
                report[f"{form} {n_rows}"] = found = score(url, source, n_rows)
                say(f"{form}, {n_rows} rows: {found}")
                source.unlink()
    return report


def lines() -> Iterator[dict[str, object]]:
    """Turns of real dialogues, each with one to five turns before it as context, without end.

    The first round has tens of thousands of different texts; each later one pairs the same contexts
    with other turns. Few texts, repeated, would be scored twice as fast.
    """
    dialogues = all_dialogues()
    turns = [turn for dialogue in dialogues for turn in dialogue[1:]]
    number = 0
    for later in count():
        for dialogue in dialogues:
            for end in range(1, len(dialogue)):
                number += 1
                context = "\n".join(dialogue[max(0, end - 1 - number % 5) : end]) + "\n"
                turn = turns[(number - 1 + later) % len(turns)]
                yield {"id": number, "context": context, "candidate": turn}


def write_input(path: Path, n_rows: int) -> None:
    """Write the first `n_rows` of `lines`, in the format of the path's suffix."""
    if path.suffix == ".jsonl":
        with path.open("w") as file:
            file.writelines(json.dumps(line) + "\n" for line in islice(lines(), n_rows))
        return
    rows, schema = lines(), pa.Table.from_pylist(list(islice(lines(), 1))).schema
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, n_rows, 65_536):
            group = list(islice(rows, min(65_536, n_rows - start)))
            writer.write_table(pa.Table.from_pylist(group, schema))


def score(url: str, source: Path, n_rows: int) -> dict[str, float]:
    """Score a file with the command, and watch its memory."""
    output = source.with_name(f"rewards-{n_rows}{source.suffix}")
    command = Path(sys.executable).with_name("gpt2-reward")
    arguments = ["score", f"--url={url}", f"--input={source}", f"--output={output}"]
    start, sizes, cpu_s = time.perf_counter(), [0.0], used_s()
    with subprocess.Popen([command, *arguments]) as process:
        while process.poll() is None:
            sizes.append(max(sizes[-1], resident_mb(with_children(process.pid))))
            time.sleep(LOOK_EVERY_S)
    seconds = time.perf_counter() - start
    if process.returncode or _n_scored(output) != n_rows:
        raise SystemExit(f"{output} does not have the {n_rows} rows that were scored")
    # the largest size seen, with the processes that tokenise, and in the first quarter of the time
    return {
        "rss_mb": sizes[-1],
        "rss_mb_first_quarter": sizes[len(sizes) // 4],
        "seconds": seconds,
        "rows_a_second": n_rows / seconds,
        "cpu_us_a_row": 1e6 * (used_s() - cpu_s) / n_rows,  # its start included
    }


def used_s() -> float:
    """Processor seconds of the commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _n_scored(output: Path) -> int:
    """The number of lines of the output; -1 if they are not numbered in order."""
    if output.suffix == ".parquet":
        numbers = pq.read_table(output, columns=["line"])["line"].to_pylist()
    else:
        with output.open() as file:
            numbers = [json.loads(line)["line"] for line in file]
    return len(numbers) if numbers == list(range(1, len(numbers) + 1)) else -1


SUITE = Suite(
    name="bulk",
    about="scoring many rows with the command: memory and rows per second",
    file="bulk.json",
    measures=CLIENT,
    takes=frozenset(),
    options=Options,
    run=run,
)
