"""A dry run from outside: starts the child, and reads what it and the stand-ins wrote."""

import collections
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from cuda_dry_run import stand_ins

# in the names of attention kernels that do not store the scores
FUSED = ("fmha", "flash", "attention_kernel_batched")


@dataclass(slots=True)
class Run:
    """What one batch asked of the GPU.

    Attributes:
        error: ONNX Runtime's message, empty if the batch went through.
        launches: how often each kernel was launched, by its demangled name's stem.
        products: calls of cuBLAS.
        to_device: copies from the host.
        to_host: copies back.
        waits: how often the host waited for the device.
    """

    error: str = ""
    launches: collections.Counter[str] = field(default_factory=collections.Counter)
    products: int = 0
    to_device: int = 0
    to_host: int = 0
    waits: int = 0

    @property
    def work(self) -> int:
        """The number of launches and products."""
        return self.launches.total() + self.products

    @property
    def attention(self) -> str:
        """The kernels of attention: `MATH` if scores were held in memory."""
        fused = {name for name in self.launches if any(part in name for part in FUSED)}
        softmax = any("oftmax" in name for name in self.launches)
        return "MATH" if softmax or not fused else ", ".join(sorted(fused))


@dataclass(slots=True)
class Session:
    """A graph on the provider, for one compute capability."""

    graph: str
    capability: int
    version: str
    runs: dict[str, Run]
    nodes: dict[str, collections.Counter[str]]  # by provider, the number of each operator
    copies: list[str]  # Memcpy nodes: direction, the operator copied from, those copied to
    most_memory: int  # bytes of the device that the whole job held at its peak


def dry_run(  # noqa: PLR0913 each is a choice of its own
    runtime: Path,
    graphs: Sequence[Path],
    batches: Mapping[str, NDArray[np.int32]],
    folder: Path,
    *,
    capabilities: Sequence[int] = (90,),
    options: Mapping[str, str],
) -> list[Session]:
    """Run each batch through each graph, on each compute capability.

    Args:
        runtime: an unpacked `onnxruntime-gpu`.
        graphs: files.
        batches: int32 [B, S] by name.
        folder: for intermediate files.
        capabilities: compute capabilities times ten.
        options: of the CUDA provider, as the model's configuration has them.

    Raises:
        RuntimeError: a session could not be made, or the provider did not start.
    """
    libraries = runtime.parent / "stand-ins" / runtime.name
    stand_ins.build(runtime, libraries)
    np.savez(folder / "batches.npz", **batches)
    job = {
        "graphs": [str(path) for path in graphs],
        "batches": str(folder / "batches.npz"),
        "capabilities": list(capabilities),
        "options": dict(options),
        "report": str(folder / "report.json"),
    }
    (folder / "job.json").write_text(json.dumps(job))
    log, said = folder / "log", folder / "said"
    log.unlink(missing_ok=True)
    with said.open("w") as stderr:
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("child.py")), str(folder / "job.json")],
            env={
                **os.environ,
                "LD_LIBRARY_PATH": str(libraries),
                "PYTHONPATH": str(runtime),
                "DRY_RUN_LOG": str(log),
            },
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            check=False,
        )
    text = said.read_text(errors="replace")
    if done.returncode:
        raise RuntimeError(f"the dry run ended with {done.returncode}:\n{text[-1500:]}")
    return _sessions(json.loads((folder / "report.json").read_text()), log.read_text(), text)


def _sessions(report: dict, log: str, said: str) -> list[Session]:
    plain = subprocess.run(["c++filt"], input=log, capture_output=True, text=True, check=True)
    asked = plain.stdout.split("#session ")[1:]
    accounts = said.split("#session ")[1:]
    found = []
    for entry, lines, account in zip(report["sessions"], asked, accounts, strict=True):
        if entry["providers"][0] != "CUDAExecutionProvider":
            raise RuntimeError(f"the provider did not start:\n{account[-1500:]}")
        runs = _runs(lines, entry["errors"])
        copies = memcpy_nodes(Path(f"{entry['graph']}.placed"))
        memory, version = report["most_memory"], report["version"]
        nodes = _placement(account)
        found.append(
            Session(entry["graph"], entry["capability"], version, runs, nodes, copies, memory)
        )
    return found


def _runs(lines: str, errors: dict[str, str]) -> dict[str, Run]:
    runs: dict[str, Run] = {}
    for part in lines.split("#run ")[1:]:
        name, *asked = part.split("#end")[0].splitlines()
        runs[name] = run = Run(errors.get(name, ""))
        for line in asked:
            kind, _, rest = line.partition(" ")
            if kind == "launch":
                run.launches[_stem(rest)] += 1
            run.products += kind == "product"
            run.waits += kind == "wait"
            run.to_device += line.startswith("copy host-to-device")
            run.to_host += line.startswith("copy device-to-host")
    return runs


def _stem(kernel: str) -> str:
    """`void onnxruntime::cuda::Kernel<float, 4>(...)` is `Kernel`."""
    name = kernel.removeprefix("void ")
    if fused := re.search(r"\w*(?:fmha|flash)\w*", name):
        return fused[0]
    return re.sub(r"[(<].*", "", name).split("::")[-1]


def _placement(account: str) -> dict[str, collections.Counter[str]]:
    """Operators by provider, from ONNX Runtime's verbose log."""
    nodes: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    provider = ""
    for line in re.sub(r"\x1b\[[0-9;]*m", "", account).splitlines():
        if where := re.search(r"(?:Node\(s\)|All nodes) placed on \[(\w+)\]", line):
            provider = where[1]
        elif node := re.search(r"VerifyEachNodeIsAssignedToAnEp\]\s+(\w+) \(.*\)\s*$", line):
            nodes[provider][node[1]] += 1
    return dict(nodes)


def memcpy_nodes(path: Path) -> list[str]:
    """The copies between host and device that ONNX Runtime put into a graph."""
    graph = onnx.load(path, load_external_data=False).graph
    source = {name: node.op_type for node in graph.node for name in node.output}
    users = collections.defaultdict(set)
    for node in graph.node:
        for name in node.input:
            users[name].add(node.op_type)
    return [
        f"{node.op_type.removeprefix('Memcpy')}: {source.get(node.input[0], 'input')} "
        f"-> {', '.join(sorted(users[node.output[0]])) or 'the answer'}"
        for node in graph.node
        if node.op_type.startswith("Memcpy")
    ]
