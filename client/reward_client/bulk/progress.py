"""How far a run is, for people who watch it."""

import sys
import time
from types import TracebackType

from tqdm import tqdm

_LAYOUT = "{desc} |{bar}| {percentage:3.0f}% [{elapsed} gone, {remaining} left]"


class Progress:
    """A bar on standard error, if that is a terminal; messages go there in any case.

    Args:
        total: the source's last position.
        begin: the position where this run starts.
        quiet: whether nothing is shown.
    """

    def __init__(self, total: int, begin: int, *, quiet: bool) -> None:
        self._quiet = quiet
        self._start = time.monotonic()
        self._bar = tqdm(
            total=total,
            initial=begin,
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

    def at(self, position: int, n_rows: int) -> None:
        """The run has come to `position`, with `n_rows` scored."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        self._bar.set_description_str(
            f"{n_rows:,} rows, {n_rows / seconds:,.0f} rows/s", refresh=False
        )
        self._bar.update(position - self._bar.n)

    def say(self, message: str) -> None:
        """A line above the bar."""
        if not self._quiet:
            tqdm.write(message, file=sys.stderr)
