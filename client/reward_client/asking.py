"""One RPC of a call: its headers, its time, what is counted, and who was heard."""

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
        options: of the client.
        endpoints: its servers.
        counters: what is counted in; its own if None.

    Attributes:
        options: of the client.
        endpoints: its servers.
        counters: what has been done so far.
        budget: what second attempts are paid from.
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
            ServerError: there was none.
        """
        trace = (span or terms.span).headers()
        headers = (*self.options.connection.headers(), *terms.headers, *trace)
        began, timeout_s = time.monotonic(), terms.time_left_s(endpoint.url)
        with timed(self.options.on_timing, "attempt", method, endpoint.url):
            try:
                outcome = yield Ask(endpoint.index, method, request, timeout_s, headers)
            except GeneratorExit:  # nobody waits any more: another server was faster, or all is off
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
        elif error.code != "UNAVAILABLE":  # which gRPC says by itself as well
            endpoint.silence.heard()
        return error
