"""The gateway's ASGI application."""

import contextlib
from collections.abc import AsyncIterator, Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from reward_client import AsyncRewardClient, RewardError
from reward_client.rl.batcher import Batcher
from reward_gateway import chat, health, openrlhf, playground, rerank, score
from reward_gateway.errors import GatewayError, refuse
from reward_gateway.guard import Guard
from reward_gateway.metrics import Metrics
from reward_gateway.service import Service
from reward_gateway.settings import Settings

CONNECT_TIMEOUT_S = 5.0  # to the generator


def create_app(
    make_client: Callable[[], AsyncRewardClient], settings: Settings | None = None
) -> FastAPI:
    """Make the ASGI application.

    Args:
        make_client: called once, in the event loop that serves.
        settings: limits, keys, and the generator; without a generator there is no best of N.
    """
    settings = settings or Settings()
    metrics = Metrics()

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, object]]:
        client = make_client()
        timeout = httpx.Timeout(settings.timeout_s, connect=CONNECT_TIMEOUT_S)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=settings.max_requests)
        no_cookies = CookieJar(
            DefaultCookiePolicy(allowed_domains=[])
        )  # one caller's cookies are not for others
        async with httpx.AsyncClient(timeout=timeout, limits=limits, cookies=no_cookies) as http:
            batcher = Batcher(client, timeout_s=settings.timeout_s)
            readiness = health.Readiness(client)
            yield {"service": Service(settings, client, batcher, http, metrics, readiness)}
        await client.close()

    app = FastAPI(
        title="gpt2-reward gateway", lifespan=lifespan, redoc_url=None, redirect_slashes=False
    )
    for module in (health, openrlhf, rerank, score, playground):
        app.include_router(module.router)
    if settings.upstream is not None:
        app.include_router(chat.router)
    for kind in (RewardError, GatewayError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, refuse)
    app.add_middleware(Guard, settings=settings, metrics=metrics)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
        )
    return app
