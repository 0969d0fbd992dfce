"""Wait for a condition, never for a fixed time."""

import time
from collections.abc import Callable

HUNG_S = 120.0  # far beyond what a busy machine takes


def eventually(holds: Callable[[], bool], *, within_s: float = HUNG_S) -> bool:
    """Wait until the condition holds. -> whether it does; the limit is only there for hangs."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
