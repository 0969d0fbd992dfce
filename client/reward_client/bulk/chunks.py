"""Lines in portions that make a request each."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from reward_client.bulk.lines import Item, Line, Rejection

MAX_CHARACTERS = 1 << 20  # of a chunk, so that many long texts do not fill the memory
MAX_REJECTIONS = 1000  # of a chunk, for the same reason


@dataclass(slots=True)
class Chunk:
    """Consecutive lines of the input.

    Attributes:
        lines: to score.
        rejections: lines among them that cannot be.
        end: position in the source behind the last one.
        n_rows: texts to score, one for each candidate.
        n_characters: of those texts.
    """

    lines: list[Line] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    end: int = 0
    n_rows: int = 0
    n_characters: int = 0

    def add(self, item: Item, end: int) -> None:
        """Take another line, which ends at `end`."""
        self.end = end
        if isinstance(item, Rejection):
            self.rejections.append(item)
            return
        self.lines.append(item)
        self.n_rows += len(item.candidates)
        self.n_characters += item.n_characters

    def is_full_for(self, item: Item, max_rows: int) -> bool:
        """Whether that line belongs into the next chunk."""
        if isinstance(item, Rejection):
            return len(self.rejections) >= MAX_REJECTIONS
        return bool(self.lines) and (
            self.n_rows + len(item.candidates) > max_rows
            or self.n_characters + item.n_characters > MAX_CHARACTERS
        )


def chunks(items: Iterable[tuple[Item, int]], max_rows: int) -> Iterator[Chunk]:
    """All items, in order.

    Args:
        items: lines and the positions behind them.
        max_rows: texts of a chunk; a line with more candidates is a chunk by itself.
    """
    chunk = Chunk()
    for item, end in items:
        if chunk.is_full_for(item, max_rows):
            yield chunk
            chunk = Chunk()
        chunk.add(item, end)
    if chunk.lines or chunk.rejections:
        yield chunk
