"""Kill `gpt2-reward score` at random points, run it again, and compare every byte of its output.

python tests/bulk_kills.py 100        prints how far each run got, and what came out

A point is a state of progress, not a time: the number of bytes that the process has written, to
files and to the server, or the number of changes in the names of its output files, such as a
conversion's new file.
"""

import gzip
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet as pq

COMMAND = (str(Path(sys.executable).with_name("gpt2-reward")),)
ELSEWHERE = (sys.executable, str(Path(__file__).parent / "bulk_elsewhere.py"))
SERVER = Path(__file__).parent / "client" / "bulk_server.py"
OPTIONS = ("--keep", "label", "--in-flight=4", "--max-rejected=0.2")
N_LINES = 1500  # per file

Files = dict[str, bytes]


@contextmanager
def bulk_server(delay_s: float) -> Iterator[str]:
    """Run the slow server in its own process. -> its address."""
    command = [sys.executable, str(SERVER), str(delay_s)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdin
        yield process.stdout.readline().strip()
        process.stdin.close()


def write_inputs(folder: Path) -> None:
    """Write shards in Parquet, JSONL and gzipped JSONL; some lines of each cannot be scored."""
    folder.mkdir()
    for number in range(2):
        lines = [line(1000 * number + i) for i in range(N_LINES)]
        rows = [{"id": None, "text": None, "label": "x", **one} for one in lines]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{number}.parquet", row_group_size=400)
        text = "".join("{torn\n" if not one else json.dumps(one) + "\n" for one in lines)
        (folder / f"{number}.jsonl").write_text(text)
    (folder / "2.jsonl.gz").write_bytes(gzip.compress((folder / "1.jsonl").read_bytes()))


def line(number: int) -> dict[str, object]:
    if number % 37 == 5:
        return {}
    text = "NaN" if number % 53 == 9 else f"{number} bottles"
    return {"id": number, "text": text, "label": f"label {number % 9}"}


def command(url: str, data: Path, output: Path, program: tuple[str, ...] = COMMAND) -> list[str]:
    return [
        *program,
        "score",
        f"--url={url}",
        f"--input={data}",
        f"--output={output}",
        *OPTIONS,
    ]


def tree(folder: Path) -> Files:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class Watched:
    """What a running command has done so far.

    Attributes:
        n_bytes: bytes written by the process.
        n_changes: changes in the names of its output files.
    """

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self._process = process
        self._output = output
        self._names: set[str] = set()
        self.n_bytes = self.n_changes = 0

    def looks(self) -> bool:
        """Look again. -> whether the process is still running."""
        try:
            counters = Path(f"/proc/{self._process.pid}/io").read_text()
            self.n_bytes = int(counters.split("wchar: ")[1].split()[0])
        except (OSError, IndexError):  # it has just ended
            return False
        names = {str(path) for path in self._output.rglob("*")}
        self.n_changes += names != self._names
        self._names = names
        return self._process.poll() is None


def run_until(arguments: list[str], output: Path, is_there: Callable[[Watched], bool]) -> Watched:
    """Run the command, and kill it once `is_there` holds. -> what was seen last."""
    with subprocess.Popen(arguments, stderr=subprocess.DEVNULL) as process:
        watched = Watched(process, output)
        while watched.looks():
            if is_there(watched):
                process.kill()
                break
            time.sleep(0.0005)
        code = process.wait()
    assert code in {0, -signal.SIGKILL}, code
    return watched


def kill_and_compare(n_kills: int, seed: int, say: Callable[[str], object]) -> Counter[str]:
    """Kill `n_kills` runs, each at its own point, and complete each. -> counts of the outcomes."""
    chance = random.Random(seed)  # noqa: S311  # no secret
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary, bulk_server(delay_s=0.01) as url:
        folder = Path(temporary)
        write_inputs(folder / "data")
        whole = folder / "whole"
        seen = run_until(command(url, folder / "data", whole), whole, lambda _: False)
        wanted = tree(whole)
        assert len(wanted) == 5 + 10
        for number in range(n_kills):
            output = folder / f"killed-{number}"
            # every other pair of runs tokenises in a process of its own
            program = ELSEWHERE if number % 4 > 1 else COMMAND
            arguments = command(url, folder / "data", output, program)
            point = chance.randrange(seen.n_bytes), chance.randrange(1, seen.n_changes + 1)
            by_bytes = number % 2 == 0
            left = run_until(
                arguments,
                output,
                lambda now, point=point, by_bytes=by_bytes: (
                    now.n_bytes >= point[0] if by_bytes else now.n_changes >= point[1]
                ),
            )
            before = tree(output)
            subprocess.run(arguments, check=True, stderr=subprocess.DEVNULL)
            outcome = "identical" if tree(output) == wanted else "different"
            outcomes[outcome] += 1
            outcomes["had been complete"] += before == wanted
            outcomes["with a new file"] += any(name.endswith(".new") for name in before)
            say(f"{left.n_bytes} bytes, {left.n_changes} changes, {len(before)} files: {outcome}")
    return outcomes


if __name__ == "__main__":
    print(dict(kill_and_compare(int(sys.argv[1]), 7, print)))  # noqa: T201  # what it is for
