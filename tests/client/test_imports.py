"""What the client offers by name."""

import reward_client


def test_exported_names_are_kept() -> None:
    assert reward_client.__all__ == [
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
    assert all(hasattr(reward_client, name) for name in reward_client.__all__)
