"""How long calls and their requests take, for the metrics of the service that uses the client."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

from reward_client.log import LOG

Kind: TypeAlias = Literal["call", "attempt"]


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a call or one of its requests took. It never holds text.

    Attributes:
        kind: `call` for a method of the client, retries included, or `attempt` for one request.
        method: the client's, such as `rank`, or Triton's, such as `ModelInfer`.
        seconds: from beginning to end.
        url: the server that was asked; None for calls, which may ask several.
        error: the name of the error's class, `cancelled` if the answer was not wanted any more,
            None if there was no error.
    """

    kind: Kind
    method: str
    seconds: float
    url: str | None = None
    error: str | None = None


OnTiming: TypeAlias = Callable[[Timing], None]
"""Called after each call and after each attempt, on the thread of the call, which waits for it."""


@contextmanager
def timed(hook: OnTiming | None, kind: Kind, method: str, url: str | None = None) -> Iterator[None]:
    """Tell the hook how long the block took, and how it ended; errors of the hook are logged."""
    if hook is None:
        yield
        return
    began, error = time.perf_counter(), None
    try:
        yield
    except BaseException as caught:
        error = "cancelled" if isinstance(caught, GeneratorExit) else type(caught).__name__
        raise
    finally:
        timing = Timing(kind, method, time.perf_counter() - began, url, error)
        try:
            hook(timing)
        except Exception:  # noqa: BLE001  # the hook's, and no reason to lose a reward
            LOG.exception("on_timing failed; the call continues")
