"""A dry run as text, and what it must not show."""

import collections
from collections.abc import Iterable

from cuda_dry_run.drive import Session

MOST_WORK = 16  # launches and products per layer
MOST_TO_HOST = 1  # copies back per run: the answer
LIMITS = (
    "A dry run cannot show: any time; any number that a kernel computes; what cuBLAS or cuDNN "
    "launch inside one call; whether a kernel that is launched would fail on the device; NVIDIA's "
    "own build inside the Triton image."
)


def work_of_a_layer(shallow: Session, deep: Session, n_more: int) -> dict[str, float]:
    """Launches and products that one more layer adds, by batch."""
    return {name: (deep.runs[name].work - run.work) / n_more for name, run in shallow.runs.items()}


def describe(session: Session) -> Iterable[str]:
    """The lines of one session."""
    yield f"{session.graph}, ONNX Runtime {session.version}, capability {session.capability}"
    for provider, nodes in session.nodes.items():
        most = ", ".join(f"{name} {n}" for name, n in nodes.most_common(8))
        yield f"  {provider}: {nodes.total()} nodes ({most}, ...)"
    back = [line for line in session.copies if line.startswith("ToHost")]
    yield f"  Memcpy nodes: {len(session.copies)}, back to the host: {back or 'none'}"
    runs = session.runs.values()
    yield f"  copies back per run, including the answer: {max(run.to_host for run in runs)}"
    attention = collections.Counter(run.attention for run in runs)
    yield f"  attention kernels, by batch: {dict(attention)}"
    for name, run in session.runs.items():
        if run.error:
            yield f"  {name} FAILED: {run.error}"
    kernels = max(runs, key=lambda run: run.work)
    listed = ", ".join(f"{name} {n}" for name, n in kernels.launches.most_common())
    yield f"  most launches: {listed}; products {kernels.products}"


def violations(shallow: Session, deep: Session, n_more: int) -> list[str]:
    """Everything that breaks the budget.

    Args:
        shallow: a graph.
        deep: the same with more layers.
        n_more: how many.
    """
    found = [
        f"a copy back to the host: {line}" for line in deep.copies if line.startswith("ToHost")
    ]
    if len(deep.copies) != len(shallow.copies):
        found.append(f"copies inside a layer: {len(shallow.copies)} became {len(deep.copies)}")
    for name, work in work_of_a_layer(shallow, deep, n_more).items():
        run = deep.runs[name]
        if run.error:
            found.append(f"{name}: {run.error}")
        elif run.attention == "MATH":
            found.append(f"{name}: attention holds all scores in memory")
        elif run.to_host > MOST_TO_HOST:
            found.append(f"{name}: {run.to_host} copies back, at most {MOST_TO_HOST} is allowed")
        elif work > MOST_WORK:
            found.append(f"{name}: {work} launches per layer, at most {MOST_WORK} are allowed")
    return found
