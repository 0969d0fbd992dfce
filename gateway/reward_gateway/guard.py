"""Checks of every request: keys, size, how many at once, and callers that disconnect."""

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from starlette.responses import JSONResponse

from reward_gateway.errors import RETRY_AFTER_S, GatewayError, body_of
from reward_gateway.metrics import Metrics
from reward_gateway.settings import Settings

ERRORS_FROM = 400
_BROKEN = GatewayError(500, "the gateway failed; its log says why", "InternalError")
LOG = logging.getLogger("reward_gateway")

OPEN = frozenset(
    {
        *("/healthz", "/readyz", "/health", "/metrics"),
        *("/", "/playground/setup", "/docs", "/openapi.json"),
    }
)
"""Paths that need no key and are answered however many requests there are."""

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """ASGI middleware around the routes.

    A request's body is read whole before the routes see it. If the caller disconnects after that,
    its work is cancelled, down to the reward server's queue.

    Args:
        app: the routes.
        settings: with the keys and limits.
        metrics: where requests are counted.
    """

    def __init__(self, app: App, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._keys = [key.encode() for key in settings.api_keys]
        self._n_requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request in ASGI's form."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        scope.setdefault("state", {})
        began = time.perf_counter()
        try:
            await self._guarded(scope, receive, answer)
        except GatewayError as error:
            await _refuse(error, scope, receive, answer)
        except Exception:
            LOG.exception("a request failed")
            await _refuse(_BROKEN, scope, receive, answer)
        finally:
            self._note(scope, answer, time.perf_counter() - began)

    async def _guarded(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        if scope["path"] in OPEN or scope["method"] == "OPTIONS":  # a browser's preflight request
            await self._app(scope, receive, answer)
            return
        self._check_key(scope)
        try:  # before it counts, or slow callers would keep all others out
            body = await asyncio.wait_for(self._body(scope, receive), self._settings.timeout_s)
        except asyncio.TimeoutError as error:  # the name that Python 3.10 needs
            raise GatewayError(408, "the body did not arrive in time", "DeadlineError") from error
        if self._n_requests >= self._settings.max_requests:
            raise GatewayError(
                429,
                f"{self._n_requests} requests are in progress already; try again later",
                "OverloadedError",
                retry_after_s=RETRY_AFTER_S,
            )
        self._n_requests += 1
        self._metrics.in_flight.set(self._n_requests)
        try:
            await self._while_awaited(scope, body, receive, answer)
        finally:
            self._n_requests -= 1
            self._metrics.in_flight.set(self._n_requests)

    def _check_key(self, scope: Scope) -> None:
        if not self._keys:
            return
        kind, _, shown = _header(scope, b"authorization").partition(b" ")
        # every key is compared, and each in constant time
        matches = [hmac.compare_digest(shown.strip(), key) for key in self._keys]
        if kind.lower() != b"bearer" or not any(matches):
            raise GatewayError(
                401, "show one of the gateway's keys: 'authorization: Bearer KEY'", "Unauthorized"
            )

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        most = self._settings.max_body_bytes
        said = _header(scope, b"content-length")
        n_bytes = int(said) if said.isdigit() else 0
        body, is_whole = bytearray(), False
        while not is_whole and n_bytes <= most:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise GatewayError(499, "the caller disconnected", "Cancelled")
            body += message.get("body", b"")
            n_bytes = max(n_bytes, len(body))
            is_whole = not message.get("more_body", False)
        if n_bytes > most:
            raise GatewayError(413, f"the body is over {most} bytes; send less", "TooLarge")
        return bytes(body)

    async def _while_awaited(
        self, scope: Scope, body: bytes, receive: Receive, answer: "_Answer"
    ) -> None:
        replayed, gone = _Replayed(body), asyncio.ensure_future(_gone(receive))
        work = asyncio.ensure_future(self._app(scope, replayed, answer))
        try:
            await asyncio.wait(
                {work, gone},
                timeout=self._settings.timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if work.done():
                work.result()
            elif not gone.done():
                raise GatewayError(
                    504, f"no answer within {self._settings.timeout_s:g} s", "DeadlineError"
                )
            else:
                scope["state"]["refused"] = "Cancelled"
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    def _note(self, scope: Scope, answer: "_Answer", seconds: float) -> None:
        route = _route(scope)
        status = answer.status or 0
        outcome = scope["state"].get("refused") or (
            "ok" if status < ERRORS_FROM else f"HTTP {status}"
        )
        self._metrics.requests.labels(route, outcome).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        if scope["path"] not in OPEN:
            told = {
                "route": route,
                "status": status,
                "outcome": outcome,
                "ms": round(1e3 * seconds, 1),
            }
            LOG.info("request", extra={"told": told})


async def _refuse(error: GatewayError, scope: Scope, receive: Receive, answer: "_Answer") -> None:
    scope["state"]["refused"] = error.kind
    if answer.status is None:  # otherwise part of an answer has been sent, and it just ends
        response = JSONResponse(body_of(error, scope["path"]), error.status, headers=error.headers)
        await response(scope, receive, answer)


class _Answer:
    """Passes an answer on, and remembers its status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


class _Replayed:
    """Replays a body that was read already, then waits: the guard itself hears disconnects."""

    def __init__(self, body: bytes) -> None:
        self._messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def __call__(self) -> Message:
        if self._messages:
            return self._messages.pop()
        await asyncio.Event().wait()
        raise AssertionError("the event is never set")


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _header(scope: Scope, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key == name), b"")


def _route(scope: Scope) -> str:
    """The path of the route that answered; "none" if no route did."""
    return getattr(scope.get("route"), "path", None) or "none"
