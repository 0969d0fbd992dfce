"""RPCs of the blocking client to one server."""

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc

from reward_client.addresses import has_many_addresses
from reward_client.channels import Channels, Line
from reward_client.connection import Connection
from reward_client.steps import Ask

CLOSED = "the client is closed; make a new one"


class Server:
    """Channels to one address."""

    def __init__(self, url: str, connection: Connection) -> None:
        credentials = connection.tls.credentials() if connection.tls else None
        options = connection.channel_options()

        def open_channel() -> grpc.Channel:
            if credentials is None:
                return grpc.insecure_channel(url, options)
            return grpc.secure_channel(url, credentials, options)

        has_many = has_many_addresses(url)
        self._channels = Channels(connection.channels, open_channel, has_many=has_many)
        self._process = os.getpid()
        self._is_closed = False

    def ask(self, step: Ask) -> Any:  # noqa: ANN401  # a message, or the error
        """Make an RPC, and wait for its outcome."""
        line, outcome, began = self._take(), None, time.monotonic()
        try:
            method: Callable[..., Any] = getattr(line.stub, step.method)
            outcome = method(step.request, timeout=step.timeout_s, metadata=step.metadata)
        except grpc.RpcError as error:
            outcome = error
        except BaseException:
            self._channels.interrupted(line)
            raise
        finally:
            self._give_back(line, began, outcome)
        return outcome

    def start(self, step: Ask, answered: Callable[[Any], None]) -> Callable[[], object]:
        """Begin an RPC, report its outcome on a thread of gRPC's, and return what stops it."""
        line, began = self._take(), time.monotonic()
        method = getattr(line.stub, step.method).future
        try:
            call = method(step.request, timeout=step.timeout_s, metadata=step.metadata)
        except BaseException:
            self._channels.interrupted(line)
            self._give_back(line, began, None)
            raise

        def ended(call: Any) -> None:  # noqa: ANN401  # response and call at once
            outcome = call if call.code() is not grpc.StatusCode.OK else call.result()
            answered(outcome)
            self._give_back(line, began, outcome)

        call.add_done_callback(ended)
        stop: Callable[[], object] = call.cancel
        return stop

    def close(self) -> None:
        """Close all channels."""
        self._is_closed = True
        for line in self._channels.all:
            if line.is_interrupted:
                _close_aside(line)
            else:
                line.channel.close()

    def _give_back(self, line: Line[grpc.Channel], began: float, outcome: object) -> None:
        finished = self._channels.give_back(line, began, outcome)
        if finished is not None:
            _close_aside(finished)

    def _take(self) -> Line[grpc.Channel]:
        if self._is_closed:
            raise ValueError(CLOSED)
        if self._process != os.getpid():
            raise ValueError(
                f"the client was made in process {self._process} and cannot be used in process "
                f"{os.getpid()}, forked from it; make one in each process, after the fork"
            )
        return self._channels.take()


def _close_aside(line: Line[grpc.Channel]) -> None:
    """Close a channel on a separate thread: gRPC's own cannot, and after Ctrl-C it may block."""
    threading.Thread(target=line.channel.close, daemon=True).start()
