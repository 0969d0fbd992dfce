"""What bulk scoring raises besides the client's own errors."""

from reward_client.errors import InvalidInputError, RewardError


class OutputError(RewardError):
    """The output cannot be written, or is not one that this run may continue."""


class WorkerError(RewardError):
    """A process that tokenises for the run has ended by itself."""


class MalformedLineError(InvalidInputError):
    """A line cannot be scored, and the run was told not to set such lines aside.

    Attributes:
        line: its number, from 1.
    """

    def __init__(self, message: str, *, line: int) -> None:
        super().__init__(message, row=line - 1)
        self.line = line
