"""Best of N in OpenAI's protocol: `/v1/chat/completions` and `/v1/completions`.

A request goes to the generator as it came, but for N candidates; its best is answered as if it had
been the only one. What a caller may want otherwise stands in a field `best_of_n`:

    {"n": 8, "min_probability": 0.5, "time_budget_s": 2.0, "sampling": "chai",
     "on_reward_failure": "error"}
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import JSONResponse, Response, StreamingResponse

from reward_gateway.choosing import Ranked, ranked
from reward_gateway.drawing import Drawn, Generator, UpstreamError, joined
from reward_gateway.errors import UNPROCESSABLE, GatewayError
from reward_gateway.service import Service
from reward_gateway.settings import SAMPLING, Choosing
from reward_gateway.streaming import events
from reward_text import Context

router = APIRouter(tags=["best of N"])

OWN = "best_of_n"  # this gateway's field, in requests and in answers
SPOKEN = ("system", "developer", "user", "assistant")


class Wishes(BaseModel):
    """What one request wants otherwise than the gateway was told."""

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
        context: what candidates are replies to, as the reward model is asked.
        body: for the generator.
        choosing: of its candidates.
        n: choices to answer.
        is_streamed: whether as server-sent events.
        with_usage: whether those end with the tokens' number.
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
        raise _bad("best of N continues one prompt of text, without echo; ask the generator itself")
    body.setdefault(OWN, {})
    if "best_of" in body:  # the protocol's own word for it
        body[OWN] = {"n": body.pop("best_of"), **body[OWN]}
    return await _completed(request, _asked(request, body, prompt), "completions")


@router.get("/v1/models")
async def models(request: Request) -> Response:
    """The generator's models."""
    service: Service = request.state.service
    url = f"{str(service.settings.upstream).rstrip('/')}/models"
    answer = await service.http.get(url, headers=_headers(request))
    return Response(answer.content, answer.status_code, media_type="application/json")


async def _completed(request: Request, asked: Asked, path: str) -> Response:
    service: Service = request.state.service
    generator = Generator(service, path, _headers(request))
    began = time.perf_counter()
    try:
        drawn, found, n_draws = await _chosen(service, generator, asked)
    except UpstreamError as error:
        request.scope["state"]["refused"] = error.kind
        return Response(error.body, error.status, error.headers, "application/json")
    _count(service, found)
    answer = {**drawn.answer, "choices": _answered(found, asked.n)}
    if drawn.usage:
        answer["usage"] = drawn.usage
    answer[OWN] = _told(found, n_draws, time.perf_counter() - began, service)
    if asked.is_streamed:
        return StreamingResponse(
            events(answer, with_usage=asked.with_usage), media_type="text/event-stream"
        )
    return JSONResponse(answer)


async def _chosen(
    service: Service, generator: Generator, asked: Asked
) -> tuple[Drawn, Ranked, int]:
    """What was drawn, ranked, and in how many draws."""
    choosing, began = asked.choosing, time.perf_counter()
    drawn = await generator.draw(asked.body, choosing)
    service.metrics.generating.observe(time.perf_counter() - began)
    found = await ranked(service, asked.context, drawn.choices, choosing.on_reward_failure)
    if choosing.min_probability is None or found.reaches(choosing.min_probability):
        return drawn, found, 1
    service.metrics.second_draws.inc()
    try:
        both = joined(drawn, await generator.draw(_reseeded(asked), choosing))
    except GatewayError:
        return drawn, found, 2  # the first draw is better than nothing
    return both, await ranked(service, asked.context, both.choices, choosing.on_reward_failure), 2


def _reseeded(asked: Asked) -> Mapping[str, Any]:
    """The same request, which with the same seed would have the same candidates."""
    seed = asked.body.get("seed")
    if not isinstance(seed, int):
        return asked.body
    return {**asked.body, "seed": seed + asked.choosing.n}


def _count(service: Service, found: Ranked) -> None:
    metrics = service.metrics
    if found.why_not is not None:
        metrics.unranked.labels(found.why_not).inc()
        return
    best, first = found.choices[0], next(one for one in found.choices if one["drawn"] == 0)
    metrics.chosen.labels("first" if best["drawn"] == 0 else "another").inc()
    metrics.gain.observe(best["reward"] - first["reward"])


def _answered(found: Ranked, n: int) -> list[dict[str, Any]]:
    return [{**choice, "index": index} for index, choice in enumerate(found.choices[:n])]


def _told(found: Ranked, n_draws: int, seconds: float, service: Service) -> dict[str, Any]:
    """What happened, beside OpenAI's fields."""
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
        raise _bad("n: a whole number from 1 on")
    choosing = _choosing(settings.choosing, body.pop(OWN, None) or {}, at_least=n)
    if choosing.n > settings.max_n:
        raise _bad(f"{choosing.n} candidates are wanted; at most {settings.max_n} are drawn here")
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
    """What was said aloud: tools' calls and answers are none of the reward model's business."""
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        raise _bad("messages: a list of objects with role and content")
    spoken = [one for one in messages if one.get("role") in SPOKEN and one.get("content")]
    return [{**one, "role": "system"} if one["role"] == "developer" else one for one in spoken]


async def _object(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise _bad("the body is no JSON") from error
    if not isinstance(body, dict):
        raise _bad("the body is no JSON object")
    return body


def _headers(request: Request) -> dict[str, str]:
    """For the generator: whose request it is, by the gateway's key or the caller's own."""
    settings = request.state.service.settings
    headers = {"content-type": "application/json"}
    if "x-request-id" in request.headers:
        headers["x-request-id"] = request.headers["x-request-id"]
    if settings.upstream_key is not None:
        headers["authorization"] = f"Bearer {settings.upstream_key}"
    elif "authorization" in request.headers and not settings.api_keys:
        headers["authorization"] = request.headers["authorization"]
    return headers


def _bad(message: str) -> GatewayError:
    return GatewayError(UNPROCESSABLE, message, "InvalidInputError")
