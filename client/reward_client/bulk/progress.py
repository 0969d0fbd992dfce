"""Shows how far a run has come."""

import sys
import time
from types import TracebackType

from tqdm import tqdm

_LAYOUT = "{desc} |{bar}| {percentage:3.0f}% [{elapsed} elapsed, {remaining} left]"


class Progress:
    """A bar on standard error, if that is a terminal; messages go there even if it is not.

    Args:
        total: bytes of all files together.
        quiet: whether to show neither.
    """

    def __init__(self, total: int, *, quiet: bool) -> None:
        self._quiet = quiet
        self._start = time.monotonic()
        self._n_rows = 0
        self._before = 0  # bytes of the files before this one
        self._size = self._last = 0
        self._label = ""
        self._bar = tqdm(
            total=total or None,
            bar_format=_LAYOUT,
            mininterval=0.5,
            file=sys.stderr,
            disable=True if quiet else None,  # None: off unless it is a terminal
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()

    def begin(self, size: int, last: int, label: str) -> None:
        """Begin the next file.

        Args:
            size: the file's bytes.
            last: the last of its positions; 0 if unknown.
            label: its number, if there are several files.
        """
        self._before += self._size
        self._size, self._last, self._label = size, last, label

    def skip_to(self, position: int) -> None:
        """Count what is before `position` of the file as done by earlier runs."""
        moved = self._moved_to(position)
        if not self._bar.disable:  # a disabled one has no such attribute
            self._bar.initial += moved
        self._bar.n += moved

    def at(self, position: int, n_rows: int) -> None:
        """Show that the run has come to `position` of the file, with `n_rows` more scored."""
        self._n_rows += n_rows
        seconds = max(time.monotonic() - self._start, 1e-9)
        self._bar.set_description_str(
            f"{self._label}{self._n_rows:,} rows, {self._n_rows / seconds:,.0f} rows/s",
            refresh=False,
        )
        self._bar.update(self._moved_to(position))

    def _moved_to(self, position: int) -> int:
        done = round(self._size * position / self._last) if self._last else 0
        return max(self._before + done - int(self._bar.n), 0)

    def say(self, message: str) -> None:
        """Write a line above the bar."""
        if not self._quiet:
            tqdm.write(message, file=sys.stderr)
