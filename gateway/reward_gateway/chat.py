"""Best of N in OpenAI's protocol: `/v1/chat/completions` and `/v1/completions`.

A request goes to the generator with the gateway's sampling defaults, unstreamed, for N candidates;
the best is returned as if it were the only one. A caller overrides settings in a field `best_of_n`:

    {"n": 8, "min_probability": 0.5, "time_budget_s": 2.0, "sampling": "chai",
     "on_reward_failure": "error"}
"""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response, StreamingResponse

from reward_client import RewardError
from reward_gateway.choosing import Ranked, ranked
from reward_gateway.drawing import (
    Drawn,
    Generator,
    Headers,
    UpstreamError,
    reseeded,
    together,
)
from reward_gateway.errors import UNPROCESSABLE, GatewayError
from reward_gateway.service import Service
from reward_gateway.settings import SAMPLING, Choosing
from reward_gateway.streaming import events
from reward_gateway.strict import read_json
from reward_text import Context

router = APIRouter(tags=["best of N"])

OWN = "best_of_n"  # this gateway's field, in requests and in answers
INSTRUCTING, SPEAKING = ("system", "developer"), ("user", "assistant")
SECOND_DRAW = 0.9  # of the time that is left; the rest is for answering with the first draw


class Wishes(BaseModel):
    """What one request overrides of the gateway's settings."""

    model_config = ConfigDict(extra="forbid", strict=True)
    n: Annotated[int, Field(ge=1)] | None = None
    min_probability: Annotated[float, Field(ge=0, le=1, strict=False)] | None = None
    time_budget_s: Annotated[float, Field(gt=0, strict=False)] | None = None
    sampling: Literal["chai"] | None = None
    on_reward_failure: Literal["first", "error"] | None = None
    drawing: Literal["auto", "n", "parallel"] | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """One request for completions.

    Attributes:
        context: what the candidates reply to, as the reward model gets it.
        body: for the generator.
        choosing: how its candidates are drawn and chosen.
        n: how many choices to answer with.
        is_streamed: whether to answer with server-sent events.
        with_usage: whether the events end with the number of tokens.
    """

    context: Context
    body: Mapping[str, Any]
    choosing: Choosing
    n: int
    is_streamed: bool
    with_usage: bool


@router.post("/v1/chat/completions")
async def chat_completions(request: Request) -> Response:
    """The best of N replies to a conversation."""
    body = await _object(request)
    asked = _asked(request, body, _conversation(body.get("messages")))
    return await _completed(request, asked, "chat/completions")


@router.post("/v1/completions")
async def completions(request: Request) -> Response:
    """The best of N continuations of a text."""
    body = await _object(request)
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        (prompt,) = prompt
    if not isinstance(prompt, str) or body.get("echo"):
        raise _bad("best of N continues one text prompt, without echo; ask the generator itself")
    if "best_of" in body:  # the protocol's own word for it
        n, own = body.pop("best_of"), body.get(OWN)
        body[OWN] = {"n": n, **own} if isinstance(own, dict) else {"n": n} if own is None else own
    return await _completed(request, _asked(request, body, prompt), "completions")


@router.get("/v1/models")
async def models(request: Request) -> Response:
    """The generator's models."""
    answer = await Generator(request.state.service, "models", _headers(request)).models()
    kind = answer.headers.get("content-type", "application/json")
    return Response(answer.content, answer.status_code, media_type=kind)


async def _completed(request: Request, asked: Asked, path: str) -> Response:
    service: Service = request.state.service
    generator = Generator(service, path, _headers(request))
    began = time.perf_counter()
    try:
        drawn, found, n_draws = await _chosen(service, generator, asked)
    except UpstreamError as error:
        request.scope["state"]["refused"] = error.kind
        return Response(error.body, error.status, error.headers)
    _count(service, found)
    answer = {**drawn.answer, "choices": _answered(found, asked.n)}
    if drawn.usage:
        answer["usage"] = drawn.usage
    answer[OWN] = _told(found, n_draws, time.perf_counter() - began, service)
    if asked.is_streamed:
        sent = events(answer, is_chat=path.startswith("chat"), with_usage=asked.with_usage)
        return StreamingResponse(sent, media_type="text/event-stream")
    # ASCII, because a lone surrogate may be in it
    return Response(json.dumps(answer, allow_nan=False), media_type="application/json")


async def _chosen(
    service: Service, generator: Generator, asked: Asked
) -> tuple[Drawn, Ranked, int]:
    """What was drawn, its ranking, and the number of draws."""
    choosing, began = asked.choosing, time.perf_counter()
    drawn = await generator.draw(asked.body, choosing)
    service.metrics.generating.observe(time.perf_counter() - began)
    found = await ranked(service, asked.context, drawn.choices, choosing.on_reward_failure)
    if choosing.min_probability is None or found.reaches(choosing.min_probability):
        return drawn, found, 1
    used_s = time.perf_counter() - began
    try:
        again = asyncio.wait_for(
            _again(service, generator, asked, drawn, used_s),
            SECOND_DRAW * (service.settings.timeout_s - used_s),
        )
        return await again
    except (GatewayError, RewardError, asyncio.TimeoutError):  # the name that Python 3.10 needs
        return drawn, found, 2  # the first draw is better than nothing


async def _again(
    service: Service, generator: Generator, asked: Asked, drawn: Drawn, used_s: float
) -> tuple[Drawn, Ranked, int]:
    """Draw again and rank both draws together; what is left of a time budget is for the second.

    Raises:
        GatewayError: the second draw failed.
        RewardError: no rewards came.
    """
    choosing = asked.choosing
    if choosing.time_budget_s is not None:
        choosing = replace(choosing, time_budget_s=max(choosing.time_budget_s - used_s, 0.0))
    service.metrics.second_draws.inc()
    # the same seed would give the same candidates
    body = {**asked.body, **reseeded(asked.body, choosing.n)}
    both = together([drawn, await generator.draw(body, choosing)])
    return both, await ranked(service, asked.context, both.choices, "error"), 2


def _count(service: Service, found: Ranked) -> None:
    metrics = service.metrics
    if found.why_not is not None:
        metrics.unranked.labels(found.why_not).inc()
        return
    best, first = found.choices[0], next(one for one in found.choices if one["drawn"] == 0)
    metrics.chosen.labels("first" if best["drawn"] == 0 else "another").inc()
    if first["reward"] is not None:  # it may be a refusal
        metrics.gain.observe(best["reward"] - first["reward"])


def _answered(found: Ranked, n: int) -> list[dict[str, Any]]:
    return [{**choice, "index": index} for index, choice in enumerate(found.choices[:n])]


def _told(found: Ranked, n_draws: int, seconds: float, service: Service) -> dict[str, Any]:
    """What happened, for a field next to OpenAI's."""
    ranking = found.ranking
    model = ranking.model if ranking else None
    return {
        "ranked": ranking is not None,
        "reason": found.why_not,
        "n_drawn": len(found.choices),
        "n_distinct": len(ranking) if ranking else None,
        "n_draws": n_draws,
        "seconds": round(seconds, 4),
        "model": service.settings.model,
        "model_version": ranking.model_version if ranking else None,
        "identity": model.identity if model else None,
        "chat_format": ranking.chat_format.name if ranking and ranking.chat_format else None,
    }


def _asked(request: Request, body: dict[str, Any], context: Context) -> Asked:
    settings = request.state.service.settings
    n = body.pop("n", None)
    n = 1 if n is None else n
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise _bad("n: must be a whole number, at least 1")
    own = body.pop(OWN, None)
    choosing = _choosing(settings.choosing, {} if own is None else own, at_least=n)
    if choosing.n > settings.max_n:
        raise _bad(f"{choosing.n} candidates are too many; ask for at most {settings.max_n}")
    options = body.pop("stream_options", None) or {}
    return Asked(
        context,
        {**choosing.sampling, **{name: value for name, value in body.items() if name != "stream"}},
        choosing,
        n,
        is_streamed=bool(body.get("stream")),
        with_usage=isinstance(options, dict) and bool(options.get("include_usage")),
    )


def _choosing(usual: Choosing, wanted: object, *, at_least: int) -> Choosing:
    try:
        wishes = Wishes.model_validate(wanted)
    except ValidationError as error:
        found = "; ".join(
            f"{OWN}.{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()
        )
        raise _bad(found) from error
    given = wishes.model_dump(exclude_none=True)
    if wishes.sampling is not None:
        given["sampling"] = SAMPLING[wishes.sampling]
    choosing = replace(usual, **given)
    return replace(choosing, n=max(choosing.n, at_least))


def _conversation(messages: object) -> list[dict[str, Any]]:
    """The messages that the reward model reads: leading instructions, and what both sides said.

    Calls and answers of tools are left out, and so are instructions in the middle, which no
    format has a place for.
    """
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        raise _bad("messages: must be a list of objects with role and content")
    told = [*takewhile(lambda one: one.get("role") in INSTRUCTING, messages)]
    said = [one for one in messages[len(told) :] if one.get("role") in SPEAKING]
    return [{**one, "role": "system"} for one in told if one.get("content")] + [
        one for one in said if one.get("content")
    ]


async def _object(request: Request) -> dict[str, Any]:
    try:
        body = read_json(await request.body())
    except ValueError as error:
        raise _bad("the body is not JSON") from error
    if not isinstance(body, dict):
        raise _bad("the body is not a JSON object")
    return body


def _headers(request: Request) -> Headers:
    """Headers for the generator, with the gateway's key or the caller's own."""
    settings = request.state.service.settings
    names = {b"x-request-id"} if settings.api_keys else {b"x-request-id", b"authorization"}
    if settings.upstream_key is not None:
        names.discard(b"authorization")
    headers = [(name, value) for name, value in request.headers.raw if name in names]
    if settings.upstream_key is not None:
        headers.append((b"authorization", f"Bearer {settings.upstream_key}".encode()))
    return [(b"content-type", b"application/json"), *headers]


def _bad(message: str) -> GatewayError:
    return GatewayError(UNPROCESSABLE, message, "InvalidInputError")
