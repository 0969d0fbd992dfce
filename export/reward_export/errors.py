"""What the exporter raises on purpose, under the package's one root.

RewardError
└── ExportError
    ├── CheckpointError     not a checkpoint that can be served, or not to be found
    ├── ParityError         the graph does not give PyTorch's rewards
    └── PublishError        the repository cannot take the version
        └── VersionTakenError   its number belongs to another one
"""

from reward_contract.errors import RewardError


class ExportError(RewardError):
    """The checkpoint was not published; nothing was left half-written."""


class CheckpointError(ExportError):
    """Not a checkpoint that can be served under the contract, or not to be found."""


class ParityError(ExportError):
    """The graph's rewards differ from PyTorch's by more than the tolerance.

    Attributes:
        difference: the largest absolute difference that was seen.
        tolerance: what would have been accepted.
    """

    def __init__(self, message: str, *, difference: float, tolerance: float) -> None:
        super().__init__(message)
        self.difference = difference
        self.tolerance = tolerance


class PublishError(ExportError):
    """The repository cannot take the version."""


class VersionTakenError(PublishError):
    """Another version has the number, or had it and was withdrawn."""
