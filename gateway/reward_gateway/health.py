"""Whether the gateway lives, whether the reward server answers, and what was counted."""

import asyncio
import time

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse, Response

from reward_client import AsyncRewardClient, Scores
from reward_gateway.errors import GatewayError

router = APIRouter(tags=["health"])

READY_TIMEOUT_S = 5.0
KNOWN_S = 1.0  # everybody may ask, and each answer would cost the model a row


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """200 while the gateway lives, whatever happens behind it."""
    return {"status": "ok"}


class Readiness:
    """Whether the model answers: asked once for all who want to know within a second.

    Args:
        client: of the reward server.
    """

    def __init__(self, client: AsyncRewardClient) -> None:
        self._client = client
        self._turn = asyncio.Lock()
        self._known: tuple[float, int | None] | None = None

    async def version(self) -> int | None:
        """The version that answers, rightly as far as one row tells.

        Raises:
            RewardError: none does.
            GatewayError: the reward is another than PyTorch's was when the model was exported.
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
    """The empty text is one of the golden rows that the exporter writes."""
    golden = scores.model.golden if scores.model else None
    if golden is None or () not in golden.rows:
        return
    row, found = golden.rows.index(()), float(scores.rewards[0])
    if not golden.is_close(row, found):
        raise GatewayError(
            503,
            f"the model gives a golden row {found:.4f}, and PyTorch gave it "
            f"{golden.rewards[row]:.4f}; gpt2-reward verify says more",
            "WrongRewardError",
        )


@router.get("/readyz")
@router.get("/health", include_in_schema=False)  # of OpenRLHF's protocol
async def readyz(request: Request) -> JSONResponse:
    """200 while the model answers a golden row rightly; otherwise why not."""
    version = await request.state.service.readiness.version()
    return JSONResponse({"status": "ok", "model_version": version})


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """What was counted, for Prometheus."""
    registry = request.state.service.metrics.registry
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
