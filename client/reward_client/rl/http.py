"""OpenRLHF's remote reward protocol over HTTP: `--reward.remote_url http://host:5000/get_reward`.

    POST /get_reward   {"query": [text, ...], "prompts": [...], "labels": [...]}
                    -> {"rewards": [float, ...], "scores": [...], "extra_logs": {...}}
    GET /health     -> 200 while the model answers

`query` is the whole text, prompt and response; `prompts` and `labels` are not looked at.
Source: `openrlhf/cli/serve_rm.py` and `openrlhf/utils/agent.py` of OpenRLHF 0.11.2.
"""

import contextlib
import json
from collections.abc import AsyncIterator, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from reward_client.aio import AsyncRewardClient
from reward_client.errors import (
    DeadlineError,
    InvalidInputError,
    ModelNotReadyError,
    NonFiniteRewardError,
    OverloadedError,
    RewardError,
    UnavailableError,
)
from reward_client.rl.batcher import Batcher

MAX_BODY_BYTES = 64 * 1024 * 1024

STATUS: dict[type[RewardError], int] = {
    InvalidInputError: 422,
    NonFiniteRewardError: 422,
    OverloadedError: 503,
    UnavailableError: 503,
    ModelNotReadyError: 503,
    DeadlineError: 504,
}
BAD_GATEWAY = 502  # whatever else the server behind us says


def create_app(
    make_client: Callable[[], AsyncRewardClient], *, timeout_s: float = 60.0
) -> Starlette:
    """The ASGI application.

    Args:
        make_client: called once, in the event loop that serves.
        timeout_s: seconds until a request is answered with 504.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, object]]:
        client = make_client()
        yield {"client": client, "batcher": Batcher(client, timeout_s=timeout_s)}
        await client.close()

    return Starlette(
        routes=[
            Route("/get_reward", get_reward, methods=["POST"]),
            Route("/health", health),
        ],
        exception_handlers={RewardError: _refuse, HTTPException: _say},
        lifespan=lifespan,
    )


async def get_reward(request: Request) -> JSONResponse:
    """The rewards of `query`."""
    batcher: Batcher = request.state.batcher
    rewards = await batcher.rewards(await _query(request))
    return JSONResponse({"rewards": rewards, "scores": rewards, "extra_logs": {}})


async def health(request: Request) -> JSONResponse:
    """Who answers behind this."""
    client: AsyncRewardClient = request.state.client
    scores = await client.score([""], timeout_s=5.0, priority="interactive")
    return JSONResponse({"model_version": scores.model_version})


async def _query(request: Request) -> list[str]:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"the body is above {MAX_BODY_BYTES} bytes; send fewer texts")
    try:
        content = json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("the body is no JSON") from error
    query = content.get("query") if isinstance(content, dict) else None
    if not isinstance(query, list) or not all(isinstance(text, str) for text in query):
        raise InvalidInputError('"query" has to be a list of texts')
    return query


async def _refuse(_request: Request, error: Exception) -> JSONResponse:
    kinds = (kind for kind in STATUS if isinstance(error, kind))
    status = STATUS[kind] if (kind := next(kinds, None)) else BAD_GATEWAY
    content = {"error": type(error).__name__, "message": str(error)}
    return JSONResponse(content, status)


async def _say(_request: Request, error: Exception) -> JSONResponse:
    """Starlette's own refusals, in the same form."""
    status, message = getattr(error, "status_code", 500), getattr(error, "detail", str(error))
    return JSONResponse({"error": "HTTPException", "message": message}, status)
