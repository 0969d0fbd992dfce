"""Connections to one server: used in turn, and replaced when they fall silent.

A load balancer that fails over, or a host that loses power, can leave a connection that takes
bytes and never answers. gRPC notices only when the kernel does, after minutes.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, Generic, TypeVar

import grpc
from tritonclient.grpc import service_pb2_grpc

from reward_client.silence import MIN_SILENCE_S, Silence

C = TypeVar("C")

UNCONNECTED_S = 5.0  # of silence, while the connection may not be established yet
RENEWAL_PAUSE_S = 1.0  # between replacements of a channel to several servers

_IN_VAIN = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


@dataclass(eq=False, slots=True)
class Line(Generic[C]):
    """One channel.

    Attributes:
        channel: gRPC's.
        stub: Triton's service on it.
        silence: what was heard on it.
        opened_at: `time.monotonic()` when it was made.
        n_calls: calls in flight.
        is_retired: no new call begins here; it is closed once the calls in flight have ended.
        is_interrupted: a call here was interrupted; gRPC may wait for it forever.
    """

    channel: C
    stub: Any
    silence: Silence = field(default_factory=Silence)
    opened_at: float = field(default_factory=time.monotonic)
    n_calls: int = 0
    is_retired: bool = False
    is_interrupted: bool = False


class Channels(Generic[C]):
    """The channels to one server. Safe across threads.

    Args:
        n_channels: how many are used in turn.
        open_channel: makes one.
        has_many: whether each channel leads to several servers (a name with several addresses),
            so that an answer from one says nothing about the others.
    """

    def __init__(self, n_channels: int, open_channel: Callable[[], C], *, has_many: bool) -> None:
        self._open_channel = open_channel
        self._has_many = has_many
        self._lock = threading.Lock()
        self._lines = [self._line() for _ in range(n_channels)]
        self._turn = cycle(range(n_channels))
        self._retired: list[Line[C]] = []

    @property
    def all(self) -> list[Line[C]]:
        """Every line that is not closed yet."""
        with self._lock:
            return [*self._lines, *self._retired]

    def take(self) -> Line[C]:
        """The next line, for a call."""
        with self._lock:
            line = self._lines[next(self._turn)]
            line.n_calls += 1
            return line

    def interrupted(self, line: Line[C]) -> None:
        """Replace a line on which Ctrl-C interrupted a call: gRPC may never answer later ones."""
        line.is_interrupted = True
        self._replace(line)

    def give_back(self, line: Line[C], began: float, outcome: object) -> Line[C] | None:
        """Note that a call has ended. -> a line whose channel is to be closed, or None.

        Args:
            line: the line that the call was on.
            began: `time.monotonic()` when it began.
            outcome: the response, the `grpc.RpcError`, or None if the call was abandoned.
        """
        if self._is_silent(line, began, outcome):
            self._replace(line)
        with self._lock:
            line.n_calls -= 1
            if line.is_retired and not line.n_calls:
                self._retired.remove(line)
                return line
        return None

    def _is_silent(self, line: Line[C], began: float, outcome: object) -> bool:
        code = outcome.code() if isinstance(outcome, grpc.RpcError) else None
        if outcome is not None and code not in _IN_VAIN:
            if code != grpc.StatusCode.UNAVAILABLE:  # gRPC also reports it on its own
                line.silence.heard()
            return False
        waited_s = line.silence.given_up(began)
        if self._has_many and time.monotonic() - line.opened_at > RENEWAL_PAUSE_S:
            waited_s = max(waited_s, time.monotonic() - began)
        return waited_s >= (MIN_SILENCE_S if line.silence.was_heard else UNCONNECTED_S)

    def _replace(self, line: Line[C]) -> None:
        with self._lock:
            if line in self._lines:
                self._lines[self._lines.index(line)] = self._line()
                line.is_retired = True
                self._retired.append(line)

    def _line(self) -> Line[C]:
        channel = self._open_channel()
        return Line(channel, service_pb2_grpc.GRPCInferenceServiceStub(channel))
