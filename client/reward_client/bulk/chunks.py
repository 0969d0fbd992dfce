"""Lines in chunks, each of which becomes one request."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from reward_client.bulk.lines import Item, Line, Rejection

MAX_CHARACTERS = 1 << 20  # of a chunk, so that many long texts do not fill the memory
MAX_REJECTIONS = 1000  # of a chunk, for the same reason


@dataclass(slots=True)
class Chunk:
    """Consecutive lines of the input.

    Attributes:
        lines: the lines to score.
        rejections: lines among them that cannot be scored.
        end: position in the source after the last line.
        n_rows: texts to score, one for each candidate.
        n_characters: characters of those texts.
        before_run: the five above, as they were before the last run of lines with one context;
            the lists by their lengths.
    """

    lines: list[Line] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    end: int = 0
    n_rows: int = 0
    n_characters: int = 0
    before_run: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)

    def add(self, item: Item, end: int) -> None:
        """Add a line that ends at `end`."""
        if isinstance(item, Rejection):
            self.end = end
            self.rejections.append(item)
            return
        if not self.has_context_of(item):
            lengths = len(self.lines), len(self.rejections)
            self.before_run = (*lengths, self.end, self.n_rows, self.n_characters)
        self.end = end
        self.lines.append(item)
        self.n_rows += len(item.candidates)
        self.n_characters += item.n_characters

    def is_full_for(self, item: Item, max_rows: int) -> bool:
        """Whether the line has to go into the next chunk."""
        if isinstance(item, Rejection):
            return len(self.rejections) >= MAX_REJECTIONS
        return bool(self.lines) and (
            self.n_rows + len(item.candidates) > max_rows
            or self.n_characters + item.n_characters > MAX_CHARACTERS
        )

    def has_context_of(self, item: Item) -> bool:
        """Whether the line has the context of the chunk's last one."""
        return (
            isinstance(item, Line)
            and item.context is not None
            and bool(self.lines)
            and self.lines[-1].context == item.context
        )

    def take_run(self) -> "Chunk":
        """Remove and return the last run of lines with one context, unless it is all there is."""
        n_lines, n_rejections, end, n_rows, n_characters = self.before_run
        if not n_lines:
            return Chunk()
        run = Chunk(
            self.lines[n_lines:],
            self.rejections[n_rejections:],
            self.end,
            self.n_rows - n_rows,
            self.n_characters - n_characters,
        )
        del self.lines[n_lines:], self.rejections[n_rejections:]
        self.end, self.n_rows, self.n_characters = end, n_rows, n_characters
        return run


def chunks(items: Iterable[tuple[Item, int]], max_rows: int) -> Iterator[Chunk]:
    """All items in chunks, in order.

    Neighbours with the same context are in one chunk if they fit: the server computes what the
    rows of a batch share only once.

    Args:
        items: lines and the positions after them.
        max_rows: maximum number of texts in a chunk, unless one line has more candidates.
    """
    chunk = Chunk()
    for item, end in items:
        if chunk.is_full_for(item, max_rows):
            run = chunk.take_run() if chunk.has_context_of(item) else Chunk()
            yield chunk
            chunk = run
            if chunk.is_full_for(item, max_rows):
                yield chunk
                chunk = Chunk()
        chunk.add(item, end)
    if chunk.lines or chunk.rejections:
        yield chunk
