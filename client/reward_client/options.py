"""What holds for a client, and for one of its calls."""

import math
import time
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from reward_client.connection import Connection
from reward_client.errors import DeadlineError
from reward_client.tracing import Span
from reward_contract import MODEL_NAME, PRIORITY_LEVELS
from reward_text import Truncation

Priority: TypeAlias = Literal["interactive", "bulk"]
"""What a call is for: somebody waits for the answer, or nobody does."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a client is made with.

    Attributes:
        timeout_s: seconds that one call may take as a whole.
        truncation: what a text loses that is too long.
        priority: of calls that do not say; the server's default if None.
        model: name of the model in the server's repository.
        model_version: the version to ask; the server's choice if None.
        connection: how servers are reached.

    Raises:
        ValueError: a value that means nothing.
    """

    timeout_s: float = 30.0
    truncation: Truncation = "left"
    priority: Priority | None = None
    model: str = MODEL_NAME
    model_version: int | None = None
    connection: Connection = field(default_factory=Connection)

    def __post_init__(self) -> None:
        check_timeout(self.timeout_s)
        check_priority(self.priority)
        if self.truncation not in get_args(Truncation):
            raise ValueError(
                f"truncation must be one of {get_args(Truncation)}, not {self.truncation!r}"
            )


def check_timeout(timeout_s: float) -> None:
    """Refuse what is no time to wait.

    Raises:
        ValueError: not above 0 and finite.
    """
    if not (timeout_s > 0 and math.isfinite(timeout_s)):
        raise ValueError(f"timeout_s must be above 0 and finite, not {timeout_s}")


def check_priority(priority: Priority | None) -> None:
    """Refuse what is no priority.

    Raises:
        ValueError: neither None nor one of `PRIORITY_LEVELS`.
    """
    if priority is not None and priority not in PRIORITY_LEVELS:
        raise ValueError(f"priority must be one of {tuple(PRIORITY_LEVELS)}, not {priority!r}")


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for one call.

    Attributes:
        deadline: `time.monotonic()` at which nobody waits any more.
        priority_level: Triton's, or None for the server's default.
        version: of the model, as the wire has it; "" for the server's choice.
        span: the call's own, parent of its attempts.
    """

    deadline: float
    priority_level: int | None
    version: str
    span: Span

    @classmethod
    def of(
        cls,
        options: Options,
        span: Span,
        timeout_s: float | None = None,
        priority: Priority | None = None,
    ) -> "Terms":
        """The client's own, where the call does not say otherwise."""
        timeout_s = options.timeout_s if timeout_s is None else timeout_s
        priority = options.priority if priority is None else priority
        check_timeout(timeout_s)
        check_priority(priority)
        level = None if priority is None else PRIORITY_LEVELS[priority]
        version = "" if options.model_version is None else str(options.model_version)
        return cls(time.monotonic() + timeout_s, level, version, span)

    def time_left_s(self, url: str) -> float:
        """Seconds until the deadline.

        Raises:
            DeadlineError: none are left.
        """
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise DeadlineError(
                f"the call's time was over before {url} could be asked; allow more", url=url
            )
        return seconds
