"""Client for a GPT-2 reward model served by NVIDIA Triton.

    from reward_client import RewardClient

    with RewardClient("localhost:8001") as client:
        best, *others = client.rank(context, candidates)

Importing it loads neither torch nor transformers.
"""

from reward_client.client import RewardClient
from reward_client.contract import CONTRACT, Contract
from reward_client.errors import (
    ContractError,
    DeadlineError,
    InternalError,
    InvalidInputError,
    ModelNotFoundError,
    NonFiniteRewardError,
    OverloadedError,
    RejectedError,
    RewardError,
    ServerError,
    UnavailableError,
)
from reward_client.tokens import Tokenizer
from reward_client.wire import RankedCandidate, ServerInfo

__all__ = [
    "CONTRACT",
    "Contract",
    "ContractError",
    "DeadlineError",
    "InternalError",
    "InvalidInputError",
    "ModelNotFoundError",
    "NonFiniteRewardError",
    "OverloadedError",
    "RankedCandidate",
    "RejectedError",
    "RewardClient",
    "RewardError",
    "ServerError",
    "ServerInfo",
    "Tokenizer",
    "UnavailableError",
]
