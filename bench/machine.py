"""What a result file says of where it was measured."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("gpt2-reward", "onnxruntime", "onnxruntime-gpu", "torch", "transformers", "numpy")


def describe(threads: int) -> dict[str, object]:
    """Processor, threads and versions."""
    return {
        "cpu": cpu_model(),
        "threads": threads,
        "python": platform.python_version(),
        "versions": {name: found for name in LIBRARIES if (found := _version(name))},
    }


def cpu_model() -> str:
    """As Linux names it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "?")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
