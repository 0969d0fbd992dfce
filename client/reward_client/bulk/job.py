"""What is to be scored, where to, and what came of it."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

Format: TypeAlias = Literal["jsonl", "text", "parquet"]
"""How a file holds its lines."""

_FORMATS: dict[str, Format] = {".parquet": "parquet", ".txt": "text"}


@dataclass(frozen=True, slots=True)
class Job:
    """One input, one output.

    Attributes:
        input: a regular file.
        output: JSONL, or Parquet where the name ends in `.parquet`.
        format: of the input; by the name's ending if None: `.parquet`, `.txt`, else JSONL.
        strict: whether a line that cannot be scored ends the run.
        trust_input: whether to go on although the input was touched; the lines that are
            scored already must be the same.
        in_flight: requests at most that are on their way together.
        patience_s: seconds without any answer after which the server is given up.

    Raises:
        ValueError: `in_flight` below 1, or a `patience_s` that is negative or not finite.
    """

    input: Path
    output: Path
    format: Format | None = None
    strict: bool = False
    trust_input: bool = False
    in_flight: int = 8
    patience_s: float = 600.0

    def __post_init__(self) -> None:
        if self.in_flight < 1:
            raise ValueError(f"in_flight must be at least 1, not {self.in_flight}")
        if not (self.patience_s >= 0 and math.isfinite(self.patience_s)):
            raise ValueError(f"patience_s must be at least 0 and finite, not {self.patience_s}")

    @property
    def input_format(self) -> Format:
        """The one given, or what the name says."""
        return self.format or _FORMATS.get(self.input.suffix, "jsonl")

    @property
    def to_parquet(self) -> bool:
        """Whether the working file is converted at the end."""
        return self.output.suffix == ".parquet"

    @property
    def is_converted(self) -> bool:
        """Whether a run has ended with the Parquet file, and nothing is left to do."""
        return self.to_parquet and self.output.exists() and not self.working.exists()

    @property
    def working(self) -> Path:
        """The JSONL file that grows while the run goes on."""
        return _beside(self.output, ".jsonl") if self.to_parquet else self.output

    @property
    def rejected(self) -> Path:
        """Where the lines that cannot be scored are listed."""
        return _beside(self.output, ".rejected.jsonl")

    @property
    def meta(self) -> Path:
        """What tells a run whether the output is its own."""
        return _beside(self.output, ".meta.json")


@dataclass(frozen=True, slots=True)
class Totals:
    """What one run has done; what earlier ones did is not counted again.

    Attributes:
        lines: input lines that are in the output now.
        rows: texts scored for them, one for each candidate.
        rejected: lines set aside.
        resumed_at: lines that the output had accounted for before.
        all_lines: lines of the input, those of earlier runs included.
        all_rejected: lines set aside, those of earlier runs included.
        seconds: from the first request on.
    """

    lines: int
    rows: int
    rejected: int
    resumed_at: int
    all_lines: int
    all_rejected: int
    seconds: float

    def is_success(self, max_rejected: float) -> bool:
        """Whether enough was scored: not nothing of an input that has lines, nor too little.

        Args:
            max_rejected: the largest share of the lines that may be set aside, from 0 to 1.
        """
        if not self.all_rejected:
            return True
        return (
            self.all_rejected < self.all_lines
            and self.all_rejected <= max_rejected * self.all_lines
        )


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)
