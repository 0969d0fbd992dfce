"""What a call waits for, as values: logic yields them, and a client does them in its own way.

A call is a generator of steps. The client that blocks and the one that awaits run the same
generator, so that batching, checking, deadlines and retries are written once.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from google.protobuf.message import Message

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ask:
    """One RPC; answered with its response, or with the `grpc.RpcError` that it ended in.

    Attributes:
        server: index of the server in the client's list.
        method: of Triton's `GRPCInferenceService`, such as `ModelInfer`.
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
        seconds: for how long; 0 lets others have a turn.
    """

    seconds: float


@dataclass(frozen=True, slots=True)
class Work:
    """Work that keeps the processor busy; answered with its result. Event loops are not blocked.

    Attributes:
        action: does it, on any thread.
    """

    action: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Together:
    """Several at once; answered with the list of their results, or raises the first error.

    Attributes:
        parts: generators, none started.
    """

    parts: "Sequence[Steps[Any]]"


@dataclass(frozen=True, slots=True)
class Hedged:
    """One, and a second beside it once the first takes long; the first result counts.

    An error before the second has begun is raised. Later, the other one is waited for, and if
    both fail, the first one's error is raised. What is not needed any more is closed.

    Attributes:
        first: a generator, not started.
        second: makes the other generator, or None for not now; then it is called again.
        after_s: seconds to wait for the first alone, each time.
    """

    first: "Steps[Any]"
    second: "Callable[[], Steps[Any] | None]"
    after_s: float


Step: TypeAlias = Ask | Pause | Work | Together | Hedged

# What comes back into a generator differs by step, which the type system cannot say.
Steps: TypeAlias = Generator[Step, Any, T]
