"""Finds suites, and runs each in a process of its own."""

import importlib
import json
import multiprocessing
import os
import pkgutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from reward_bench import suites
from reward_bench.fingerprint import fingerprint
from reward_bench.machine import describe
from reward_bench.suite import Setting, Suite

DESCRIBED = ("shape", "device", "precision", "seed", "seconds", "rounds")  # in every report


def known_suites() -> list[Suite[Any]]:
    """All suites, ordered by name."""
    return [suite_of(module.name) for module in pkgutil.iter_modules(suites.__path__)]


def suite_of(name: str) -> Suite[Any]:
    """The suite with this name."""
    suite: Suite[Any] = importlib.import_module(f"reward_bench.suites.{name}").SUITE
    return suite


def measured_by(suite: Suite[Any]) -> tuple[str, ...]:
    """Files and folders that a result of the suite depends on, its own module among them."""
    return (*suite.measures, f"bench/reward_bench/suites/{suite.name}.py")


def in_own_process(name: str, setting: Setting, own: object, file: Path) -> None:
    """Run a suite in a process that has neither the modules nor the memory of another."""
    process = multiprocessing.get_context("spawn").Process(
        target=run, args=(name, setting, own, file)
    )
    process.start()
    try:
        process.join()
    finally:
        process.terminate()
        process.join()
    if process.exitcode:
        sys.exit(f"{name} ended with exit code {process.exitcode}")


def run(name: str, setting: Setting, own: object, file: Path) -> None:
    """Measure, and write the result file."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    suite = suite_of(name)
    code = fingerprint(measured_by(suite))  # before files can change
    load_before, start = os.getloadavg()[0], time.perf_counter()
    try:
        found = suite.run(setting, own)
    except KeyboardInterrupt:
        sys.exit(130)
    # a checkpoint has a shape of its own
    heeded = suite.takes - ({"shape"} if setting.checkpoint else set())
    report = {
        **describe(setting.threads if "threads" in suite.takes else 1),
        **{field: getattr(setting, field) for field in DESCRIBED if field in heeded},
        "load_average_before": load_before,
        "code": code,
        "took_s": round(time.perf_counter() - start),
        **found,
    }
    file.write_text(json.dumps(report, indent=1) + "\n")
    if failed := found.get("failed"):
        sys.exit(f"these steps or figures failed: {failed}; see {file}")
