"""Exceptions that the exporter raises on purpose, under the package's one root.

RewardError
└── ExportError
    ├── CheckpointError     the checkpoint cannot be found, or cannot be served
    ├── ParityError         the graph does not give PyTorch's rewards
    └── PublishError        the version cannot be published to the repository
        └── VersionTakenError   another version has its number
"""

from reward_contract.errors import RewardError


class ExportError(RewardError):
    """The checkpoint was not published; nothing was left half-written."""


class CheckpointError(ExportError):
    """The checkpoint cannot be found, or cannot be served under the contract."""


class ParityError(ExportError):
    """The graph's rewards differ from PyTorch's by more than the tolerance.

    Attributes:
        difference: the largest absolute difference that was seen.
        tolerance: the largest difference that would have been accepted.
    """

    def __init__(self, message: str, *, difference: float, tolerance: float) -> None:
        super().__init__(message)
        self.difference = difference
        self.tolerance = tolerance


class PublishError(ExportError):
    """The version cannot be published to the repository."""


class VersionTakenError(PublishError):
    """Another version has the number, or had it and was withdrawn."""
