"""The root of what this project raises on purpose, and the errors that more than one part raises.

`reward_client.errors`, `reward_export.errors`, `reward_serve.errors` and `reward_train.errors`
have the branches. Messages hold numbers and remedies, never the text of a conversation.
"""


class RewardError(Exception):
    """Root of what this project raises on purpose. It can be pickled, with its attributes."""

    def __reduce__(self) -> tuple[object, ...]:
        """Like `Exception`, but unpickle without `__init__`, whose arguments have no defaults."""
        return _unpickled, (type(self), self.args), vars(self)


def _unpickled(kind: type[RewardError], args: tuple[object, ...]) -> RewardError:
    error = kind.__new__(kind)
    error.args = args
    return error


class InvalidInputError(RewardError):
    """A text or an argument that cannot be scored.

    Attributes:
        row: index of the offending text in the call's input, or of the candidate in its
            group; None if it is not a single one.
        group: index of the group, in `rank_many`; else None.
    """

    def __init__(self, message: str, *, row: int | None = None, group: int | None = None) -> None:
        super().__init__(message)
        self.row = row
        self.group = group


class NoFormatError(InvalidInputError):
    """Messages for a model that does not say in which format it reads conversations."""


class ContractError(RewardError):
    """Client and server disagree about the model, or a part of the package is damaged.

    Attributes:
        differences: one readable line per field that differs.
    """

    def __init__(self, message: str, *, differences: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.differences = differences
