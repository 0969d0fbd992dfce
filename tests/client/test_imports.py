"""What the client offers by name."""

import reward_client


def test_exported_names_are_kept() -> None:
    assert reward_client.__all__ == [
        "CONTRACT",
        "TLS",
        "AsyncRewardClient",
        "Connection",
        "Contract",
        "ContractError",
        "Counts",
        "DeadlineError",
        "InternalError",
        "InvalidInputError",
        "ModelNotFoundError",
        "ModelNotReadyError",
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
    ]
    assert all(hasattr(reward_client, name) for name in reward_client.__all__)
