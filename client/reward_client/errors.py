"""Everything that the client raises on purpose.

    RewardError
    ├── InvalidInputError        a text or an argument that cannot be scored; the caller fixes it
    │   └── NoFormatError        messages for a model that names no format of conversations
    ├── ContractError            client and server do not agree on the model
    ├── ServerError              the server could not answer
    │   ├── UnavailableError     no server there, or not ready yet; trying again may help
    │   ├── ModelNotReadyError   the server is up, but still loading, or has unloaded the version
    │   ├── ModelNotFoundError   the server is up, but does not have this model or version
    │   ├── OverloadedError      the queue is full; try again later, with fewer calls
    │   ├── DeadlineError        no answer within the time allowed
    │   ├── RejectedError        the server refused the request
    │   └── InternalError        the server failed while scoring
    └── NonFiniteRewardError     an answer came, but a row could not be scored

Messages hold numbers and remedies, never the text of a conversation.
"""

from reward_contract.errors import ContractError, InvalidInputError, NoFormatError, RewardError

__all__ = [
    "ContractError",
    "DeadlineError",
    "InternalError",
    "InvalidInputError",
    "ModelNotFoundError",
    "ModelNotReadyError",
    "NoFormatError",
    "NonFiniteRewardError",
    "OverloadedError",
    "RejectedError",
    "RewardError",
    "ServerError",
    "UnavailableError",
]


class ServerError(RewardError):
    """The server could not answer.

    Attributes:
        url: the server that was asked.
        code: the gRPC status code's name, such as ``UNAVAILABLE``; None if there was no status.
        attempts: requests that were made before giving up.
    """

    def __init__(
        self, message: str, *, url: str, code: str | None = None, attempts: int = 1
    ) -> None:
        super().__init__(message)
        self.url = url
        self.code = code
        self.attempts = attempts


class UnavailableError(ServerError):
    """No server at this address, not ready yet, or its model's process has died."""


class ModelNotReadyError(ServerError):
    """The server is up, but is loading the model or has taken the version out of service."""


class ModelNotFoundError(ServerError):
    """The server is up, but does not have this model or version."""


class OverloadedError(ServerError):
    """The server's queue is full."""


class DeadlineError(ServerError):
    """No answer within the time allowed."""


class RejectedError(ServerError):
    """The server refused the request."""


class InternalError(ServerError):
    """The server failed while scoring."""


class NonFiniteRewardError(RewardError):
    """The server answered NaN or infinity: the row could not be scored.

    Attributes:
        rows: indices of the rows in the call's input.
    """

    def __init__(self, message: str, *, rows: tuple[int, ...]) -> None:
        super().__init__(message)
        self.rows = rows
