"""Client for a GPT-2 reward model served by NVIDIA Triton.

    from reward_client import RewardClient

    with RewardClient("localhost:8001") as client:
        best, *others = client.rank(context, candidates)

Importing this package loads neither torch nor transformers.
"""

from reward_client.aio import AsyncRewardClient
from reward_client.client import RewardClient
from reward_client.connection import TLS, Connection, Retry
from reward_client.counters import Counts
from reward_client.errors import (
    ContractError,
    DeadlineError,
    InternalError,
    InvalidInputError,
    ModelNotFoundError,
    ModelNotReadyError,
    NoFormatError,
    NonFiniteRewardError,
    OverloadedError,
    RejectedError,
    RewardError,
    ServerError,
    UnavailableError,
)
from reward_client.options import OnError, Priority
from reward_client.results import ModelInfo, RankedCandidate, Ranking, Scores, ServerInfo
from reward_client.timing import Timing
from reward_contract import CONTRACT, Contract
from reward_text import Calibration, Conversation, Format, Tokenizer, Truncation, Usage

__all__ = [
    "CONTRACT",
    "TLS",
    "AsyncRewardClient",
    "Calibration",
    "Connection",
    "Contract",
    "ContractError",
    "Conversation",
    "Counts",
    "DeadlineError",
    "Format",
    "InternalError",
    "InvalidInputError",
    "ModelInfo",
    "ModelNotFoundError",
    "ModelNotReadyError",
    "NoFormatError",
    "NonFiniteRewardError",
    "OnError",
    "OverloadedError",
    "Priority",
    "RankedCandidate",
    "Ranking",
    "RejectedError",
    "Retry",
    "RewardClient",
    "RewardError",
    "Scores",
    "ServerError",
    "ServerInfo",
    "Timing",
    "Tokenizer",
    "Truncation",
    "UnavailableError",
    "Usage",
]
