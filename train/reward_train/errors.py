"""What training and evaluation raise on purpose, under the package's one root.

RewardError
└── TrainError
    ├── DataError      rows, dialogues or groups that cannot be used; the message says which
    └── StartError     nothing to start from: no such checkpoint, or an impossible shape
"""

from reward_contract.errors import RewardError


class TrainError(RewardError):
    """Nothing was trained, or not to the end."""


class DataError(TrainError):
    """Rows, dialogues or groups that cannot be used.

    Attributes:
        row: index of the offending row in the file, or None where no single one is.
    """

    def __init__(self, message: str, *, row: int | None = None) -> None:
        super().__init__(message)
        self.row = row


class StartError(TrainError):
    """The model to start from is not there, or its shape is impossible."""
