"""One RPC of a call: its headers, its timeout, what is counted, and which server was heard from."""

import time

import grpc
from google.protobuf.message import Message

from reward_client.budget import RetryBudget
from reward_client.counters import Counters
from reward_client.endpoints import Endpoint, Endpoints
from reward_client.errors import ServerError
from reward_client.grpc_errors import NO_ANSWER, server_error
from reward_client.options import Options, Terms
from reward_client.steps import Ask, Steps
from reward_client.timing import timed
from reward_client.tracing import Span


class Asking:
    """What all requests of a client have in common.

    Args:
        options: the client's.
        endpoints: the client's servers.
        counters: counts what is done; new ones if None.

    Attributes:
        options: the client's.
        endpoints: the client's servers.
        counters: what has been done so far.
        budget: pays for second attempts.
    """

    def __init__(
        self, options: Options, endpoints: Endpoints, counters: Counters | None = None
    ) -> None:
        self.options = options
        self.endpoints = endpoints
        self.counters = counters or Counters()
        self.budget = RetryBudget()

    def ask(
        self,
        endpoint: Endpoint,
        method: str,
        request: Message,
        terms: Terms,
        span: Span | None = None,
    ) -> Steps[Message]:
        """The response of one server.

        Raises:
            ServerError: the RPC ended in an error.
        """
        trace = (span or terms.span).headers()
        headers = (*self.options.connection.headers(), *terms.headers, *trace)
        began, timeout_s = time.monotonic(), terms.time_left_s(endpoint.url)
        with timed(self.options.on_timing, "attempt", method, endpoint.url):
            try:
                outcome = yield Ask(endpoint.index, method, request, timeout_s, headers)
            except GeneratorExit:  # another server was faster, or the call was cancelled
                self.endpoints.mark_given_up(endpoint, began)
                raise
            if isinstance(outcome, grpc.RpcError):
                self.counters.failed()
                raise self._error(outcome, endpoint, began) from outcome
        endpoint.silence.heard()
        return outcome

    def _error(self, outcome: grpc.RpcError, endpoint: Endpoint, began: float) -> ServerError:
        error = server_error(outcome, endpoint.url)
        if error.code == NO_ANSWER:
            self.endpoints.mark_given_up(endpoint, began)
        elif error.code != "UNAVAILABLE":  # gRPC also reports it on its own
            endpoint.silence.heard()
        return error
