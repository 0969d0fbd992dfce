"""Candidates from a generator that speaks OpenAI's protocol."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx

from reward_gateway.errors import BAD_GATEWAY, GatewayError
from reward_gateway.service import Service
from reward_gateway.settings import Choosing
from reward_gateway.strict import read_json

PASSED_ON = ("content-type", "retry-after", "x-request-id")
ERRORS = range(400, 600)

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Headers as they came: HTTP has bytes, which need not be text."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a generator answered.

    Attributes:
        answer: its first answer without the choices.
        choices: candidates in OpenAI's form, in the order drawn.
        usage: tokens of all its answers together; empty if it does not count them.
    """

    answer: Mapping[str, Any]
    choices: Sequence[dict[str, Any]]
    usage: Mapping[str, int]


class UpstreamError(GatewayError):
    """The generator's own refusal, which callers get unchanged.

    Args:
        status: HTTP status.
        body: of the answer.
        headers: of the answer; those in `PASSED_ON` go to the caller.
    """

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        super().__init__(status, f"the generator answered {status}", "UpstreamError")
        self.body = body
        passed_on = {name: headers[name] for name in PASSED_ON if name in headers}
        self._headers = {name: text for name, text in passed_on.items() if text.isascii()}

    @property
    def headers(self) -> dict[str, str]:
        """The headers that go to the caller."""
        return self._headers


class Generator:
    """Draws candidates for one request.

    Args:
        service: has the HTTP client.
        path: such as `chat/completions`.
        headers: to send, with the caller's key or the gateway's.
    """

    def __init__(self, service: Service, path: str, headers: Headers) -> None:
        self._http = service.http
        self._url = f"{str(service.settings.upstream).rstrip('/')}/{path}"
        self._headers = [*headers]

    async def draw(self, body: Mapping[str, Any], choosing: Choosing) -> Drawn:
        """Draw N candidates, or as many as come within the time budget.

        Raises:
            UpstreamError: the generator refused, and no candidate came.
            GatewayError: it cannot be reached, or its answer is not in OpenAI's form.
        """
        if choosing.time_budget_s is not None or choosing.drawing == "parallel":
            return await self._parallel(body, choosing.n, choosing.time_budget_s)
        try:
            drawn = await self._ask({**body, "n": choosing.n})
        except UpstreamError as error:
            if choosing.drawing == "n" or error.status not in (400, 422):
                raise
            # it may not know `n`; if something else is wrong, one more request will tell
            drawn = await self._ask(_seeded(body, 0))
        first = len(drawn.choices)
        if first >= choosing.n or choosing.drawing == "n":
            return drawn
        return together([drawn, await self._parallel(body, choosing.n - first, None, first)])

    async def _parallel(
        self, body: Mapping[str, Any], n: int, budget_s: float | None, first: int = 0
    ) -> Drawn:
        """One candidate per request; those that fail are left out, as long as one comes."""
        bodies = [_seeded(body, first + i) for i in range(n)]
        tasks = [asyncio.ensure_future(self._ask(each)) for each in bodies]
        try:
            _, waiting = await asyncio.wait(tasks, timeout=budget_s)
            while waiting and not any(map(_has_come, tasks)):
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            come = [task.result() for task in tasks if _has_come(task)]
            if not come:
                await tasks[0]  # raises
            return together(come)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def models(self) -> httpx.Response:
        """The generator's own list of its models.

        Raises:
            GatewayError: the generator cannot be reached.
        """
        return await self._request("GET", None)

    async def _ask(self, body: Mapping[str, Any]) -> Drawn:
        response = await self._request("POST", json.dumps(body).encode())
        if response.status_code in ERRORS:
            raise UpstreamError(response.status_code, response.content, response.headers)
        return _read(response)

    async def _request(self, method: str, content: bytes | None) -> httpx.Response:
        try:
            return await self._http.request(
                method, self._url, content=content, headers=self._headers
            )
        except httpx.TimeoutException as error:
            raise GatewayError(
                504, "the generator did not answer in time", "UpstreamTimeout"
            ) from error
        except httpx.HTTPError as error:
            message = f"the request to the generator failed: {type(error).__name__}"
            raise GatewayError(BAD_GATEWAY, message, "UpstreamUnavailable") from error


def _has_come(task: "asyncio.Task[Drawn]") -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _read(response: httpx.Response) -> Drawn:
    try:
        answer = read_json(response.content)
        choices = [_choice(choice) for choice in answer.pop("choices")]
        usage = {**(answer.pop("usage", None) or {})}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise GatewayError(
            BAD_GATEWAY, "the generator's answer is not in OpenAI's form", "UpstreamError"
        ) from error
    return Drawn(answer, choices, usage)


def _choice(found: Mapping[str, Any]) -> dict[str, Any]:
    """A choice, once the parts that are read here have the right types.

    Raises:
        TypeError: one of them has not.
    """
    message = found.get("message") or {}
    calls = (message.get("tool_calls") if isinstance(message, dict) else message) or []
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise TypeError("a message is an object, and its calls a list of objects")
    return {**found}


def _seeded(body: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The request for one candidate, with a seed of its own."""
    one = {name: value for name, value in body.items() if name != "n"}
    return one | reseeded(body, number)


def reseeded(body: Mapping[str, Any], number: int) -> dict[str, int]:
    """A request's own seed plus a number, if it has one."""
    seed = body.get("seed")
    return {"seed": seed + number} if type(seed) is int else {}


def together(drawn: Sequence[Drawn]) -> Drawn:
    """Join several draws for the same request into one."""
    usage: dict[str, int] = {}
    for one in drawn:
        for name, value in one.usage.items():
            if isinstance(value, int):
                usage[name] = usage.get(name, 0) + value
    choices = [choice for one in drawn for choice in one.choices]
    return Drawn(drawn[0].answer, choices, usage)
