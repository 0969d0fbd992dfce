"""What holds for a client, and for one of its calls."""

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
"""What a call is for: somebody waits for the answer, or nobody does."""


OnError: TypeAlias = Literal["raise", "nan"]
"""What becomes of a call of which some rows have no finite reward: an error, or NaN for those.

In `rank_many` and `rank_each`, also of a call of which some groups cannot be scored."""


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
        on_timing: told of each call and attempt.
        chat_format: of conversations, in place of the model's own.

    Raises:
        ValueError: a value that means nothing.
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
    """A format, or the one of that name.

    Raises:
        ValueError: there is none.
    """
    if isinstance(chat_format, str):
        if chat_format not in FORMATS:
            raise ValueError(f"chat_format must be one of {tuple(FORMATS)}, not {chat_format!r}")
        return FORMATS[chat_format]
    return chat_format


def check_timeout(timeout_s: float) -> None:
    """Refuse what is no time to wait.

    Raises:
        ValueError: not above 0 and finite.
    """
    if not (timeout_s > 0 and math.isfinite(timeout_s)):
        raise ValueError(f"timeout_s must be above 0 and finite, not {timeout_s}")


def check_on_timing(on_timing: OnTiming | None) -> None:
    """Refuse what cannot be called, or would have to be awaited.

    Raises:
        ValueError: neither None nor a plain function.
    """
    if on_timing is not None and (not callable(on_timing) or iscoroutinefunction(on_timing)):
        raise ValueError(
            f"on_timing must be a plain function of one Timing, not {type(on_timing).__name__} "
            "or a coroutine function"
        )


def check_truncation(truncation: Truncation) -> None:
    """Refuse what is not a way to truncate.

    Raises:
        ValueError: not one of `Truncation`.
    """
    if truncation not in get_args(Truncation):
        raise ValueError(f"truncation must be one of {get_args(Truncation)}, not {truncation!r}")


def check_priority(priority: Priority | None) -> None:
    """Refuse what is no priority.

    Raises:
        ValueError: neither None nor one of `PRIORITY_LEVELS`.
    """
    if priority is not None and priority not in PRIORITY_LEVELS:
        raise ValueError(f"priority must be one of {tuple(PRIORITY_LEVELS)}, not {priority!r}")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What one call wants otherwise than its client; None for the client's."""

    timeout_s: float | None = None
    priority: Priority | None = None
    truncation: Truncation | None = None
    model_version: int | None = None
    headers: Headers | None = None
    on_error: OnError = "raise"


NO_WISHES = Wishes()


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for one call.

    Attributes:
        deadline: `time.monotonic()` after which the answer is not wanted any more.
        priority_level: Triton's, or None for the server's default.
        truncation: what the candidates of a group lose that are too long.
        version: of the model, as the wire has it; "" for the server's choice.
        headers: of this call's requests, besides the client's.
        on_error: what rows without a finite reward do.
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
        """The client's own, where the call does not say otherwise.

        Raises:
            ValueError: a wish that means nothing.
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
                f"the call's time was over before {url} could be asked; allow more", url=url
            )
        return seconds
