"""What is to be scored, where the rewards go, and what came of it."""

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

LINES_A_BLOCK = 1024  # these stay together in a shard: neighbours often share a context


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several parts of the work, for schedulers that start a run for each.

    Attributes:
        number: from 1 to `count`.
        count: how many parts there are.

    Raises:
        ValueError: a number out of that range.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(
                f"there is no shard {self.number} of {self.count}; shards are numbered from 1"
            )

    def has(self, line: int) -> bool:
        """Whether a line of a file, counted from 1, is in this part: blocks are dealt in turn."""
        return (line - 1) // LINES_A_BLOCK % self.count == self.number - 1

    def n_lines_up_to(self, line: int) -> int:
        """How many of a file's first `line` lines are in this part."""
        rounds, rest = divmod(line, LINES_A_BLOCK * self.count)
        own = min(max(rest - LINES_A_BLOCK * (self.number - 1), 0), LINES_A_BLOCK)
        return rounds * LINES_A_BLOCK + own


@dataclass(frozen=True, slots=True)
class Job:
    """One input, one output.

    Attributes:
        input: a regular file, plain or compressed with gzip or Zstandard; `-` is standard input.
        output: JSONL, compressed if the name ends in `.gz` or `.zst`, or Parquet if it ends in
            `.parquet`; `-` is standard output, for JSONL that is not resumed.
        format: format of the input; by the name's ending if None: `.parquet`, `.csv`, `.txt`,
            else JSONL.
        columns: which columns are scored and kept.
        shard: the part of the lines to score; all if None.
        lines: numbers of the only lines to score; all if None.
        side: folder of the files that accompany the output; the output's own if None.
        strict: whether a line that cannot be scored ends the run.
        trust_input: whether to continue even if the input has changed; the lines already scored
            must be the same.
        rescore_rejected: whether lines that were set aside, and have since been fixed in the
            input, are scored too; all others must be the same.
        in_flight: maximum number of requests in flight.
        patience_s: seconds without any answer after which the run gives up.

    Raises:
        ValueError: `in_flight` below 1, or a `patience_s` that is negative or not finite.
        InvalidInputError: columns of a text file, which has none, or `rescore_rejected` with
            standard input or output.
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
            raise InvalidInputError("rejected lines can be rescored only from file to file")

    @property
    def input_format(self) -> Format:
        """The format given, or the one that the input's name says."""
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
        """Whether the output is made from the working file at the end of the run."""
        return self.to_parquet or self.output.suffix in PACKED

    @property
    def is_converted(self) -> bool:
        """Whether an earlier run has converted its working file, and nothing is left to do."""
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
        """The file that lists the lines that cannot be scored."""
        return self.beside(".rejected.jsonl")

    @property
    def meta(self) -> Path:
        """The file that tells a run whether the output is its own."""
        return self.beside(".meta.json")

    def n_lines_up_to(self, line: int) -> int:
        """How many of the input's first `line` lines are to be scored."""
        if self.lines is not None:
            return sum(1 for one in self.lines if one <= line)
        return self.shard.n_lines_up_to(line) if self.shard else line

    def beside(self, ending: str) -> Path:
        """A file that accompanies the output, named after it."""
        return (self.side or self.output.parent) / (self.output.name + ending)


@dataclass(frozen=True, slots=True)
class Totals:
    """What one run has done; the work of earlier runs counts only where noted.

    Attributes:
        lines: input lines that this run has added to the output.
        rows: texts scored for them, one for each candidate.
        rejected: lines set aside.
        resumed_at: lines that earlier runs had accounted for.
        all_lines: lines of the input, including those of earlier runs.
        all_rejected: lines set aside, including those of earlier runs.
        seconds: time since the first request.
    """

    lines: int
    rows: int
    rejected: int
    resumed_at: int
    all_lines: int
    all_rejected: int
    seconds: float

    def is_success(self, max_rejected: float) -> bool:
        """Whether enough was scored: a line, if there are any, and not too many set aside.

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
        """The totals of two files together."""
        return Totals(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def format_of(path: Path) -> Format:
    """The format that a file's name says, compressed or not."""
    name = path.with_suffix("") if path.suffix in PACKED else path
    return _FORMATS.get(name.suffix, "jsonl")
