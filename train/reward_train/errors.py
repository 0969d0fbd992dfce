"""What training and evaluation raise on purpose, under the package's one root.

RewardError
└── TrainError
    ├── DataError      rows, dialogues or groups that cannot be used; the message says which
    └── StartError     nothing to start from: no such checkpoint, or an impossible shape
"""

from reward_contract.errors import RewardError


class TrainError(RewardError):
    """Training or evaluation failed."""


class DataError(TrainError):
    """Rows, dialogues or groups that cannot be used.

    Attributes:
        row: index of the offending row in the file, or None if no single row is at fault.
    """

    def __init__(self, message: str, *, row: int | None = None) -> None:
        super().__init__(message)
        self.row = row


class StartError(TrainError):
    """The model to start from does not exist, or its shape is impossible."""
