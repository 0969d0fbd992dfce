"""What a call waits for, as values: the logic yields them, and each client does them in its way.

A call is a generator of steps. The blocking client and the asyncio client run the same
generator, so batching, checking, deadlines and retries are written only once.
"""

from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from google.protobuf.message import Message

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ask:
    """One RPC; answered with its response, or with the `grpc.RpcError` that it ended in.

    Attributes:
        server: index of the server in the client's list.
        method: a method of Triton's `GRPCInferenceService`, such as `ModelInfer`.
        request: that method's message.
        timeout_s: seconds until it is given up.
        metadata: headers.
    """

    server: int
    method: str
    request: Message
    timeout_s: float
    metadata: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait; answered with None.

    Attributes:
        seconds: for how long; 0 lets other tasks run.
    """

    seconds: float


@dataclass(frozen=True, slots=True)
class Work:
    """Work that keeps the processor busy; answered with its result. It blocks no event loop.

    Attributes:
        action: does the work, on any thread.
        elsewhere: has the work done in another process instead; only for the asyncio client.
    """

    action: Callable[[], Any]
    elsewhere: Callable[[], Awaitable[Any]] | None = None


@dataclass(frozen=True, slots=True)
class Together:
    """Several generators at once; answered with their results, or raises the first error.

    Attributes:
        parts: generators, none started.
    """

    parts: "Sequence[Steps[Any]]"


@dataclass(frozen=True, slots=True)
class Hedged:
    """A generator, and a second one if the first takes long; the earlier result counts.

    An error before the second has begun is raised. After that, the other one is waited for, and
    if both fail, the error of `first` is raised. What is not needed any more is closed.

    Attributes:
        first: a generator, not started.
        second: makes the other generator, or returns None for not yet; then it is called again.
        after_s: seconds to wait for `first` before each call of `second`.
    """

    first: "Steps[Any]"
    second: "Callable[[], Steps[Any] | None]"
    after_s: float


Step: TypeAlias = Ask | Pause | Work | Together | Hedged

# What a generator gets back depends on the step, which the type system cannot express.
Steps: TypeAlias = Generator[Step, Any, T]
