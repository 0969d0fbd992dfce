"""What is to be scored, where to, and what came of it."""

import math
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from reward_client.bulk.columns import Columns
from reward_client.bulk.streams import STDIN
from reward_client.errors import InvalidInputError

Format: TypeAlias = Literal["jsonl", "text", "csv", "parquet"]
"""How a file holds its lines."""

PACKED = (".gz", ".zst")
_FORMATS: dict[str, Format] = {".parquet": "parquet", ".txt": "text", ".csv": "csv"}

LINES_A_BLOCK = 1024  # which stay together in a shard: neighbours often share a context


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several parts of the work, for schedulers that start a run for each.

    Attributes:
        number: from 1 to `count`.
        count: of the parts.

    Raises:
        ValueError: a number out of that range.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"there is no shard {self.number} of {self.count}; they begin at 1")

    def has(self, line: int) -> bool:
        """Whether that line of a file, from 1 on, is in this part: blocks are dealt out in turn."""
        return (line - 1) // LINES_A_BLOCK % self.count == self.number - 1

    def n_lines_up_to(self, line: int) -> int:
        """How many of a file's first lines are in this part."""
        rounds, rest = divmod(line, LINES_A_BLOCK * self.count)
        own = min(max(rest - LINES_A_BLOCK * (self.number - 1), 0), LINES_A_BLOCK)
        return rounds * LINES_A_BLOCK + own


@dataclass(frozen=True, slots=True)
class Job:
    """One input, one output.

    Attributes:
        input: a regular file, plain or packed with gzip or Zstandard; `-` is standard input.
        output: JSONL, packed where the name ends in `.gz` or `.zst`, or Parquet where it ends in
            `.parquet`; `-` is standard output, for JSONL that is not resumed.
        format: of the input; by the name's ending if None: `.parquet`, `.csv`, `.txt`, else
            JSONL.
        columns: which are scored and kept.
        shard: the part of the lines to score; all if None.
        lines: numbers of the only lines to score; all if None.
        side: folder of the files beside the output; the output's own if None.
        strict: whether a line that cannot be scored ends the run.
        trust_input: whether to continue although the input was touched; the lines that are
            scored already must be the same.
        rescore_rejected: whether lines that were set aside, and have been fixed in the input
            since, are scored too; all others must be the same.
        in_flight: requests at most that are on their way together.
        patience_s: seconds without any answer after which the server is given up.

    Raises:
        ValueError: `in_flight` below 1, or a `patience_s` that is negative or not finite.
        InvalidInputError: columns of a text file, which has none.
    """

    input: Path
    output: Path
    format: Format | None = None
    columns: Columns = field(default_factory=Columns)
    shard: Shard | None = None
    lines: frozenset[int] | None = field(default=None, repr=False)
    side: Path | None = None
    strict: bool = False
    trust_input: bool = False
    rescore_rejected: bool = False
    in_flight: int = 8
    patience_s: float = 600.0

    def __post_init__(self) -> None:
        if self.in_flight < 1:
            raise ValueError(f"in_flight must be at least 1, not {self.in_flight}")
        if not (self.patience_s >= 0 and math.isfinite(self.patience_s)):
            raise ValueError(f"patience_s must be at least 0 and finite, not {self.patience_s}")
        if self.input_format == "text" and self.columns != Columns():
            raise InvalidInputError(f"{self.input} is text, which has no columns to name or keep")
        if self.rescore_rejected and STDIN in {self.input, self.output}:
            raise InvalidInputError("lines can be scored again from file to file only")

    @property
    def input_format(self) -> Format:
        """The one given, or what the name says."""
        return self.format or format_of(self.input)

    @property
    def to_parquet(self) -> bool:
        """Whether the output is Parquet."""
        return self.output.suffix == ".parquet"

    @property
    def is_printed(self) -> bool:
        """Whether the output is standard output."""
        return self.output == STDIN

    @property
    def converts(self) -> bool:
        """Whether the output is made of the working file at the end."""
        return self.to_parquet or self.output.suffix in PACKED

    @property
    def is_converted(self) -> bool:
        """Whether a run has ended with such an output, and nothing is left to do."""
        return self.converts and self.output.exists() and not self.working.exists()

    @property
    def takes_from_input(self) -> bool:
        """Whether copied columns are taken from the input at the end, with their Arrow types."""
        return self.to_parquet and self.input_format == "parquet"

    @property
    def working(self) -> Path:
        """The JSONL file that grows during the run."""
        return self.beside(".jsonl") if self.converts else self.output

    @property
    def rejected(self) -> Path:
        """Where the lines that cannot be scored are listed."""
        return self.beside(".rejected.jsonl")

    @property
    def meta(self) -> Path:
        """What tells a run whether the output is its own."""
        return self.beside(".meta.json")

    def n_lines_up_to(self, line: int) -> int:
        """How many of the input's first lines are to be scored."""
        if self.lines is not None:
            return sum(1 for one in self.lines if one <= line)
        return self.shard.n_lines_up_to(line) if self.shard else line

    def beside(self, ending: str) -> Path:
        """A file beside the output, named after it."""
        return (self.side or self.output.parent) / (self.output.name + ending)


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

    def __add__(self, other: "Totals") -> "Totals":
        """Those of two files together."""
        return Totals(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def format_of(path: Path) -> Format:
    """What the name of a file says, packed or not."""
    name = path.with_suffix("") if path.suffix in PACKED else path
    return _FORMATS.get(name.suffix, "jsonl")
