"""Describes the machine for result files, and tells whether it is idle."""

import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from reward_bench.processes import TICKS_A_SECOND

LIBRARIES = ("gpt2-reward", "onnxruntime", "onnxruntime-gpu", "torch", "transformers", "numpy")
CPUINFO = Path("/proc/cpuinfo")
BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16"})
# Linux's names of what decides the speed of matrix products -> everybody's
INSTRUCTIONS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "VNNI",
    "avx512_vnni": "VNNI",
    **dict.fromkeys(sorted(BFLOAT16), "bfloat16"),
    "amx_int8": "AMX",
}
IDLE_PROCESSORS = 0.2  # that may be busy while the machine counts as idle


def describe(threads: int) -> dict[str, object]:
    """Processor, threads and versions."""
    return {
        "cpu": cpu_model(),
        "threads": threads,
        "python": platform.python_version(),
        "versions": {name: found for name in LIBRARIES if (found := _version(name))},
    }


def cpu_model(cpuinfo: Path = CPUINFO) -> str:
    """The processor's name, as Linux gives it, and its instructions for matrix products."""
    name, flags = _line("model name", cpuinfo) or "?", _flags(cpuinfo)
    found = dict.fromkeys(said for flag, said in INSTRUCTIONS.items() if flag in flags)
    return f"{name} ({', '.join(found)})" if found else name


def has_bfloat16(cpuinfo: Path = CPUINFO) -> bool:
    """Whether the processor multiplies bfloat16 itself; emulated, it is slower than float32."""
    return bool(BFLOAT16 & _flags(cpuinfo))


def _flags(cpuinfo: Path) -> set[str]:
    return set(_line("flags", cpuinfo).split())


def _line(name: str, cpuinfo: Path) -> str:
    lines = cpuinfo.read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith(name)), "")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def wait_until_idle(at_most_s: float = 2.0, step_s: float = 0.1) -> None:
    """Wait until hardly any processor is busy, so that what ran before has stopped spinning."""
    end = time.monotonic() + at_most_s
    while time.monotonic() < end:
        before = _busy_s()
        time.sleep(step_s)
        if _busy_s() - before <= IDLE_PROCESSORS * step_s:
            return


def _busy_s() -> float:
    """Processor seconds since the machine's start: /proc/stat's, without idling and waiting."""
    counts = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(counts) - counts[3] - counts[4]) / TICKS_A_SECOND
