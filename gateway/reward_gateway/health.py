"""Whether the gateway is alive, whether the reward server answers, and the gateway's metrics."""

import asyncio
import time

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse, Response

from reward_client import AsyncRewardClient, Scores
from reward_gateway.errors import GatewayError

router = APIRouter(tags=["health"])

READY_TIMEOUT_S = 5.0
KNOWN_S = 1.0  # anyone may ask, and each check costs the model a row


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """200 while the gateway is alive, even if the reward server is not."""
    return {"status": "ok"}


class Readiness:
    """Whether the model answers; a good answer is kept for a second, for all callers.

    Args:
        client: of the reward server.
    """

    def __init__(self, client: AsyncRewardClient) -> None:
        self._client = client
        self._turn = asyncio.Lock()
        self._known: tuple[float, int | None] | None = None

    async def version(self) -> int | None:
        """The version that answers, after one golden row was checked.

        Raises:
            RewardError: no version answers.
            GatewayError: the reward differs from PyTorch's when the model was exported.
        """
        async with self._turn:
            if self._known is None or time.monotonic() - self._known[0] > KNOWN_S:
                self._known = None
                scores = await self._client.score(
                    [""], timeout_s=READY_TIMEOUT_S, priority="interactive"
                )
                _check(scores)
                self._known = time.monotonic(), scores.model_version
            return self._known[1]


def _check(scores: Scores) -> None:
    """Check the reward of the empty text, one of the golden rows that the exporter writes."""
    golden = scores.model.golden if scores.model else None
    if golden is None or () not in golden.rows:
        return
    row, found = golden.rows.index(()), float(scores.rewards[0])
    if not golden.is_close(row, found):
        raise GatewayError(
            503,
            f"the model gives a golden row {found:.4f}, but PyTorch gave it "
            f"{golden.rewards[row]:.4f}; run gpt2-reward verify for details",
            "WrongRewardError",
        )


@router.get("/readyz")
@router.get("/health", include_in_schema=False)  # of OpenRLHF's protocol
async def readyz(request: Request) -> JSONResponse:
    """200 while the model gives a golden row the right reward; otherwise why not."""
    version = await request.state.service.readiness.version()
    return JSONResponse({"status": "ok", "model_version": version})


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """The gateway's metrics, for Prometheus."""
    registry = request.state.service.metrics.registry
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
