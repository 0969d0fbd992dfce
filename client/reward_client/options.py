"""The options of a client, and of one of its calls."""

import math
import time
from dataclasses import dataclass, field
from inspect import iscoroutinefunction
from typing import Literal, TypeAlias, get_args

from reward_client.connection import Connection, Headers, checked_headers
from reward_client.errors import DeadlineError
from reward_client.timing import OnTiming
from reward_client.tracing import Span
from reward_contract import MODEL_NAME, PRIORITY_LEVELS
from reward_text import FORMATS, Format, Truncation

Priority: TypeAlias = Literal["interactive", "bulk"]
"""Whether a user waits for the answer (`interactive`) or not (`bulk`)."""


OnError: TypeAlias = Literal["raise", "nan"]
"""What a call does if some rows have no finite reward: raise an error, or give those rows NaN.

In `rank_many` and `rank_each`, the same goes for groups that cannot be scored."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options that a client is made with.

    Attributes:
        timeout_s: seconds that one call may take as a whole.
        truncation: how a text that is too long is cut.
        priority: priority of calls that do not set one; the server's default if None.
        model: name of the model in the server's repository.
        model_version: the version to ask; the server's choice if None.
        connection: how servers are reached.
        on_timing: called after each call and attempt.
        chat_format: format of conversations; the model's own if None.

    Raises:
        ValueError: a value is invalid.
    """

    timeout_s: float = 30.0
    truncation: Truncation = "left"
    priority: Priority | None = None
    model: str = MODEL_NAME
    model_version: int | None = None
    connection: Connection = field(default_factory=Connection)
    on_timing: OnTiming | None = None
    chat_format: Format | None = None

    def __post_init__(self) -> None:
        check_timeout(self.timeout_s)
        check_priority(self.priority)
        check_truncation(self.truncation)
        check_on_timing(self.on_timing)


def format_of(chat_format: Format | str | None) -> Format | None:
    """The format that is given, or named.

    Raises:
        ValueError: no format has that name.
    """
    if isinstance(chat_format, str):
        if chat_format not in FORMATS:
            raise ValueError(f"chat_format must be one of {tuple(FORMATS)}, not {chat_format!r}")
        return FORMATS[chat_format]
    return chat_format


def check_timeout(timeout_s: float) -> None:
    """Refuse an invalid timeout.

    Raises:
        ValueError: it is not above 0 and finite.
    """
    if not (timeout_s > 0 and math.isfinite(timeout_s)):
        raise ValueError(f"timeout_s must be above 0 and finite, not {timeout_s}")


def check_on_timing(on_timing: OnTiming | None) -> None:
    """Refuse a hook that cannot be called, or would have to be awaited.

    Raises:
        ValueError: it is neither None nor a plain function.
    """
    if on_timing is not None and (not callable(on_timing) or iscoroutinefunction(on_timing)):
        raise ValueError(
            f"on_timing must be a plain function of one Timing, not {type(on_timing).__name__} "
            "or a coroutine function"
        )


def check_truncation(truncation: Truncation) -> None:
    """Refuse an unknown truncation.

    Raises:
        ValueError: it is not one of `Truncation`.
    """
    if truncation not in get_args(Truncation):
        raise ValueError(f"truncation must be one of {get_args(Truncation)}, not {truncation!r}")


def check_priority(priority: Priority | None) -> None:
    """Refuse an unknown priority.

    Raises:
        ValueError: it is neither None nor one of `PRIORITY_LEVELS`.
    """
    if priority is not None and priority not in PRIORITY_LEVELS:
        raise ValueError(f"priority must be one of {tuple(PRIORITY_LEVELS)}, not {priority!r}")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What one call overrides of its client's options; None for the client's own."""

    timeout_s: float | None = None
    priority: Priority | None = None
    truncation: Truncation | None = None
    model_version: int | None = None
    headers: Headers | None = None
    on_error: OnError = "raise"


NO_WISHES = Wishes()


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of one call.

    Attributes:
        deadline: `time.monotonic()` after which the answer is not wanted any more.
        priority_level: Triton's, or None for the server's default.
        truncation: how the texts of a group are cut if too long.
        version: version of the model, as it is sent; "" for the server's choice.
        headers: headers of this call's requests, in addition to the client's.
        on_error: what to do if rows have no finite reward.
        span: the call's own, parent of its attempts.
    """

    deadline: float
    priority_level: int | None
    truncation: Truncation
    version: str
    headers: tuple[tuple[str, str], ...]
    on_error: OnError
    span: Span

    @classmethod
    def of(cls, options: Options, span: Span, wishes: Wishes = NO_WISHES) -> "Terms":
        """The client's options, with what the call overrides.

        Raises:
            ValueError: a wish is invalid.
        """
        timeout_s = options.timeout_s if wishes.timeout_s is None else wishes.timeout_s
        priority = options.priority if wishes.priority is None else wishes.priority
        truncation = options.truncation if wishes.truncation is None else wishes.truncation
        version = options.model_version if wishes.model_version is None else wishes.model_version
        check_timeout(timeout_s)
        check_priority(priority)
        check_truncation(truncation)
        if wishes.on_error not in get_args(OnError):
            raise ValueError(
                f"on_error must be one of {get_args(OnError)}, not {wishes.on_error!r}"
            )
        return cls(
            time.monotonic() + timeout_s,
            None if priority is None else PRIORITY_LEVELS[priority],
            truncation,
            "" if version is None else str(version),
            checked_headers(wishes.headers) if wishes.headers else (),
            wishes.on_error,
            span,
        )

    def time_left_s(self, url: str) -> float:
        """Seconds until the deadline.

        Raises:
            DeadlineError: none are left.
        """
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise DeadlineError(
                f"the call timed out before {url} could be asked; allow more time", url=url
            )
        return seconds
