"""Table cells and phrases that several sections use."""

from collections.abc import Mapping
from typing import Any

Report = Mapping[str, Any]


def machine(report: Report) -> str:
    """Threads, device and seed, and the machine's load before the run."""
    return (
        f"{report['threads']} threads, {report['device']}, seed {report['seed']}, load average "
        f"{report['load_average_before']:.1f} before the run"
    )


def span(by: Mapping[str, float] | None, digits: int = 0) -> str:
    """Median, and the range of the rounds in brackets; a dash for None."""
    if by is None:
        return "-"
    return f"{by['median']:.{digits}f} ({by['min']:.{digits}f} to {by['max']:.{digits}f})"


def quantiles(by: Mapping[str, float], *names: str) -> str:
    """Cells with the named quantiles; a dash for each that is missing."""
    return " | ".join(f"{by[name]:.0f}" if name in by else "-" for name in names)


def outcomes(by: Mapping[str, int]) -> str:
    """Number of calls by outcome, the most frequent first."""
    return ", ".join(f"{n} {name}" for name, n in sorted(by.items(), key=_count, reverse=True))


def _count(item: tuple[str, int]) -> int:
    return item[1]
