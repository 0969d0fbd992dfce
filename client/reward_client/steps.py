"""What a call waits for, as values: logic yields them, and a client does them in its own way.

A call is a generator of steps. The client that blocks and the one that awaits run the same
generator, so that batching, checking, deadlines and retries are written once.
"""

from collections.abc import Generator, Sequence
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
        seconds: for how long.
    """

    seconds: float


@dataclass(frozen=True, slots=True)
class Together:
    """Several at once; answered with the list of their results, or raises the first error.

    Attributes:
        parts: generators, none started.
    """

    parts: "Sequence[Steps[Any]]"


Step: TypeAlias = Ask | Pause | Together

# What comes back into a generator differs by step, which the type system cannot say.
Steps: TypeAlias = Generator[Step, Any, T]
