"""Triton's own load generator, perf_analyzer, against ours on the same server in the same run.

The binary comes out of tritonclient 2.51.0's wheel: later ones need a newer glibc than many hosts
have. It and the two libraries that it needs are put into a folder of the environment.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reward_bench.load import (
    Call,
    Request,
    closed_loop,
    drive,
    percentiles_ms,
    steady_rows_a_second,
)
from reward_bench.pools import chat_pools
from reward_bench.rounds import Spread, ratio, spread
from reward_bench.serving import TAKES, Host, answered, host
from reward_bench.suite import SERVED, NoOptions, Report, Setting, Suite, say
from reward_bench.texts import N_CANDIDATES
from reward_contract import MODEL_NAME

FOLDER = Path(sys.prefix) / "perf_analyzer"
WHEELS = ("tritonclient==2.51.0", "nvidia-cuda-runtime-cu12")
LIBRARY, PACKAGE = "libb64.so.0d", "libb64-0d"
IN_FLIGHT = 4
INPUT = "input_ids"


def run(setting: Setting, _own: NoOptions) -> Report:
    """Rows per second and median latency by both generators, for each regime."""
    binary = perf_analyzer()
    found: Report = {"in_flight": IN_FLIGHT}
    with host(setting) as served, tempfile.TemporaryDirectory() as folder:
        ids = chat_pools(16, setting.seed)
        pools = answered(served, {regime: ids[regime] for regime in ("short", "long")})
        for regime, pool in pools.items():
            data = Path(folder) / f"{regime}.json"
            write_requests(data, pool)
            found[regime] = compare(served, pool, binary, data)
    return found


def compare(served: Host, pool: Sequence[Request], binary: Path, data: Path) -> dict[str, Spread]:
    """Run both generators in turn."""
    theirs, ours = [], []
    (first,) = drive(served.url, (served.load(pool), closed_loop(IN_FLIGHT, 0.01)))
    window_s = window_of(served.setting, first)
    for _ in range(served.setting.rounds):
        theirs.append(analyzed(served, binary, data, window_s))
        ours.append(generated(served, pool, window_s))
        say(f"{data.stem}: perf_analyzer {theirs[-1]}, ours {ours[-1]}")
    rates = [[rate for rate, _ in values] for values in (ours, theirs)]
    medians = [[ms for _, ms in values] for values in (ours, theirs)]
    return {
        "rows_a_second_ours": spread(rates[0]),
        "rows_a_second_perf_analyzer": spread(rates[1]),
        "rows_ratio": ratio(*rates),
        "p50_ms_ours": spread(medians[0]),
        "p50_ms_perf_analyzer": spread(medians[1]),
        "p50_ratio": ratio(*medians),
    }


def generated(served: Host, pool: Sequence[Request], seconds: float) -> tuple[float, float]:
    """Rows per second and median milliseconds of our own generator."""
    loop = closed_loop(IN_FLIGHT, seconds)
    (calls,) = drive(served.url, (served.load(pool), loop))
    latencies = [call.latency_s for call in calls[IN_FLIGHT:]]
    return steady_rows_a_second(calls, IN_FLIGHT, seconds), percentiles_ms(latencies)["p50"]


def analyzed(served: Host, binary: Path, data: Path, seconds: float) -> tuple[float, float]:
    """Rows per second and median milliseconds of perf_analyzer, over its three windows."""
    table = data.with_suffix(".csv")
    arguments = [
        *("-m", MODEL_NAME, "-u", served.url, "-i", "grpc", "--async", "-b", str(N_CANDIDATES)),
        *("--input-data", str(data), "--concurrency-range", f"{IN_FLIGHT}:{IN_FLIGHT}"),
        *("--measurement-interval", str(int(1e3 * seconds))),
        *("--max-trials", "4", "--stability-percentage", "999", "-f", str(table)),
    ]
    done = subprocess.run(
        [str(binary), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LD_LIBRARY_PATH": library_path()},
    )
    if not table.exists():
        raise RuntimeError(f"perf_analyzer ended with {done.returncode}: {done.stderr[-800:]}")
    with table.open() as file:
        row = next(csv.DictReader(file))
    table.unlink()
    return float(row["Inferences/Second"]), float(row["p50 latency"]) / 1e3


def window_of(setting: Setting, calls: Sequence[Call]) -> float:
    """Seconds of one window: several calls long, so that calls cut off at its ends hardly count."""
    return max(2.0, 2 * setting.seconds, 5 * float(np.median([call.latency_s for call in calls])))


def write_requests(path: Path, pool: Sequence[Request]) -> None:
    """Write rows in the order in which perf_analyzer takes a batch's: request after request."""
    rows = np.concatenate([request.ids for request in pool])
    data = [{INPUT: {"content": row.tolist(), "shape": [len(row)]}} for row in rows]
    path.write_text(json.dumps({"data": data}))


def perf_analyzer() -> Path:
    """The binary, which is fetched the first time."""
    binary = FOLDER / "bin" / "perf_analyzer"
    if not binary.exists():
        say(f"installing perf_analyzer into {FOLDER}")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--target", str(FOLDER), *WHEELS], check=True)
        binary.chmod(0o755)
    if not list(libraries()):
        fetch_library()
    return binary


def libraries() -> Sequence[Path]:
    """Files of the library that no wheel contains."""
    places = (FOLDER / "debian", Path("/usr/lib/x86_64-linux-gnu"))
    return [file for place in places for file in place.rglob(LIBRARY)]


def fetch_library() -> None:
    """Fetch the library from Debian's package, unpacked without installing it.

    Raises:
        RuntimeError: the package cannot be fetched, as on systems other than Debian.
    """
    folder, download = FOLDER / "debian", ["apt-get", "download", PACKAGE]
    folder.mkdir(exist_ok=True)
    try:
        subprocess.run(download, cwd=folder, check=True)
        (package,) = folder.glob("*.deb")
        unpack = ["dpkg-deb", "-x", str(package), str(folder)]
        subprocess.run(unpack, check=True)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        raise RuntimeError(
            f"perf_analyzer needs {LIBRARY}; install your system's package of it ({PACKAGE})"
        ) from error


def library_path() -> str:
    """The value of LD_LIBRARY_PATH."""
    return f"{FOLDER / 'nvidia/cuda_runtime/lib'}:{libraries()[0].parent}"


SUITE = Suite(
    name="analyzer",
    about="Triton's perf_analyzer against our own load generator",
    file="analyzer-{shape}.json",
    measures=SERVED,
    takes=TAKES,
    options=NoOptions,
    run=run,
)
