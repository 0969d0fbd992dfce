"""Bulk scoring of many rows: resident memory and rows a second, by the number of rows.

    python bench/bulk.py --output bench/results/bulk.json

The command runs as users run it, against a `FakeServer` in another process, so that the figures
are the command's own and not a model's. Its output is checked against the input.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from machine import describe

from client import fake_server
from reward_export.conversations import conversations

LOOK_EVERY_S = 0.05
FORMATS = ("jsonl", "parquet")


def lines() -> Iterator[dict[str, object]]:
    """Turns of real conversations behind what was said before, without end."""
    dialogues = conversations()
    number = 0
    while True:
        for dialogue in dialogues:
            for i, turn in enumerate(dialogue.turns[1:6], start=1):
                number += 1
                context = "\n".join(dialogue.turns[:i]) + "\n"
                yield {"id": number, "context": context, "candidate": turn}


def write_input(path: Path, n_rows: int) -> None:
    """The first lines, as the path's name says."""
    if path.suffix == ".jsonl":
        with path.open("w") as file:
            file.writelines(json.dumps(line) + "\n" for line in islice(lines(), n_rows))
        return
    import pyarrow as pa  # noqa: PLC0415  # for this format alone
    from pyarrow import parquet as pq  # noqa: PLC0415

    rows, schema = lines(), pa.Table.from_pylist(list(islice(lines(), 1))).schema
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, n_rows, 65_536):
            group = list(islice(rows, min(65_536, n_rows - start)))
            writer.write_table(pa.Table.from_pylist(group, schema))


def run(url: str, source: Path, n_rows: int) -> dict[str, float]:
    """Score a file with the command, and look at its memory meanwhile."""
    output = source.with_name(f"rewards-{n_rows}{source.suffix}")
    command = Path(sys.executable).with_name("gpt2-reward")
    arguments = ["score", f"--url={url}", f"--input={source}", f"--output={output}"]
    start, sizes = time.perf_counter(), [0.0]
    with subprocess.Popen([command, *arguments]) as process:
        while process.poll() is None:
            sizes.append(max(sizes[-1], _resident_mb(process.pid)))
            time.sleep(LOOK_EVERY_S)
    seconds = time.perf_counter() - start
    if process.returncode or _n_scored(output) != n_rows:
        raise SystemExit(f"{output} has not the {n_rows} rows that were scored")
    # the largest that it was seen with, and the largest in the first quarter of its time
    return {
        "rss_mb": sizes[-1],
        "rss_mb_first_quarter": sizes[len(sizes) // 4],
        "seconds": seconds,
        "rows_a_second": n_rows / seconds,
    }


def _n_scored(output: Path) -> int:
    """Lines of the output; each has to be the next one."""
    if output.suffix == ".parquet":
        from pyarrow import parquet as pq  # noqa: PLC0415

        numbers = pq.read_table(output, columns=["line"])["line"].to_pylist()
    else:
        with output.open() as file:
            numbers = [json.loads(line)["line"] for line in file]
    return len(numbers) if numbers == list(range(1, len(numbers) + 1)) else -1


def _resident_mb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it has just ended
        return 0.0
    found = status.partition("VmRSS:")[2].split()
    return int(found[0]) / 1024 if found else 0.0


def main() -> None:
    """Measure, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    report: dict[str, object] = {**describe(threads=1)}
    with tempfile.TemporaryDirectory() as folder, fake_server() as url:
        for form in given.formats:
            for n_rows in given.rows:
                source = Path(folder) / f"input-{n_rows}.{form}"
                write_input(source, n_rows)
                report[f"{form} {n_rows}"] = run(url, source, n_rows)
                source.unlink()
    print(json.dumps(report, indent=1))
    if given.output:
        given.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
