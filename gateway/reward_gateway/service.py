"""What all requests of a gateway share."""

from dataclasses import dataclass

import httpx

from reward_client import AsyncRewardClient
from reward_client.rl.batcher import Batcher
from reward_gateway.health import Readiness
from reward_gateway.metrics import Metrics
from reward_gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class Service:
    """What all requests of a gateway share.

    Attributes:
        settings: of the gateway.
        client: asks the reward server.
        batcher: puts many small calls together, for trainers.
        http: asks the generator.
        metrics: what is counted.
        readiness: whether the model answers.
    """

    settings: Settings
    client: AsyncRewardClient
    batcher: Batcher
    http: httpx.AsyncClient
    metrics: Metrics
    readiness: Readiness
