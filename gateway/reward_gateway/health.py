"""Whether the gateway lives, whether the reward server answers, and what was counted."""

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse, Response

router = APIRouter(tags=["health"])

READY_TIMEOUT_S = 5.0


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """200 while the gateway lives, whatever happens behind it."""
    return {"status": "ok"}


@router.get("/readyz")
@router.get("/health", include_in_schema=False)  # of OpenRLHF's protocol
async def readyz(request: Request) -> JSONResponse:
    """200 while the model answers a row; otherwise why not."""
    service = request.state.service
    scores = await service.client.score([""], timeout_s=READY_TIMEOUT_S, priority="interactive")
    return JSONResponse({"status": "ok", "model_version": scores.model_version})


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """What was counted, for Prometheus."""
    registry = request.state.service.metrics.registry
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
