"""Everything that the client raises on purpose.

    RewardError
    ├── InvalidInputError        a text or an argument that cannot be scored; the caller mends it
    ├── ContractError            client and server do not speak of the same model
    ├── ServerError              the server could not answer
    │   ├── UnavailableError     nobody there, or not ready yet; trying again may help
    │   ├── ModelNotReadyError   the server is up, and loads the model or has unloaded the version
    │   ├── ModelNotFoundError   the server is up, but does not have this model or version
    │   ├── OverloadedError      the queue is full; try again later, with fewer calls
    │   ├── DeadlineError        no answer within the time allowed
    │   ├── RejectedError        the server refused the request
    │   └── InternalError        the server failed while scoring
    └── NonFiniteRewardError     an answer came, but a row could not be scored

Messages hold numbers and remedies, never the text of a conversation.
"""


class RewardError(Exception):
    """Root of what this package raises on purpose."""


class InvalidInputError(RewardError):
    """A text or an argument that cannot be scored.

    Attributes:
        row: index of the offending text in the call's input, or of the candidate in its
            group; None where no single one is.
        group: index of the group, in `rank_many`; else None.
    """

    def __init__(self, message: str, *, row: int | None = None, group: int | None = None) -> None:
        super().__init__(message)
        self.row = row
        self.group = group


class ContractError(RewardError):
    """Client and server do not speak of the same model.

    Attributes:
        differences: one readable line for each field that differs.
    """

    def __init__(self, message: str, *, differences: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.differences = differences


class ServerError(RewardError):
    """The server could not answer.

    Attributes:
        url: the server that was asked.
        code: the gRPC status code's name, such as ``UNAVAILABLE``; None where no status came.
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
    """No server at this address, or it is not ready yet."""


class ModelNotReadyError(ServerError):
    """The server is up, and is loading the model, or has taken the version out of service."""


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
