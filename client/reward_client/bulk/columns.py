"""Which columns of an input are scored, and which are copied into the output."""

from collections.abc import Iterable
from dataclasses import dataclass

from reward_client.errors import InvalidInputError
from reward_text.usage import NAMES

TEXT, CONTEXT, MESSAGES, ID = "text", "context", "messages", "id"
CANDIDATE, CANDIDATES = "candidate", "candidates"

OWN = ("line", "reward", "rewards", "model_version")
"""The output's own columns."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of columns, or of fields if lines are JSON.

    If none of the first four is given, each line's fields say what it is: `text`, or `context`
    or `messages` with `candidate` or with a list `candidates`.

    Attributes:
        text: column of whole texts.
        context: column of contexts; `context` or `messages` if both are None and `candidate` is
            given.
        messages: column of conversations instead of contexts: lists of messages, or such lists
            as JSON. `bot_name`, `user_name`, `persona` and `prompt` are read along with it.
        candidate: column of candidates, strings or lists of strings; `candidate` or
            `candidates` if None and `context` or `messages` is given.
        keep: columns copied into the output with their types, as `id` always is.

    Raises:
        InvalidInputError: a column of whole texts with any other that is scored, columns of both
            contexts and messages, or a name in `keep` that the output uses itself.
    """

    text: str | None = None
    context: str | None = None
    messages: str | None = None
    candidate: str | None = None
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.text and (self.context or self.messages or self.candidate):
            raise InvalidInputError(
                "a text column is scored by itself; name either it, or the columns of candidates "
                "and of contexts or messages"
            )
        if self.context and self.messages:
            raise InvalidInputError(
                "messages take the place of a context; name only one of the two columns"
            )
        if taken := [name for name in self.keep if name in OWN]:
            raise InvalidInputError(
                f"cannot keep {listed(taken)}: the output uses such names itself; rename the "
                "columns in the input"
            )

    @property
    def are_named(self) -> bool:
        """Whether the form of a line is known beforehand."""
        return bool(self.text or self.context or self.messages or self.candidate)

    @property
    def copied(self) -> tuple[str, ...]:
        """All columns that are copied, `id` first."""
        return (ID, *(name for name in self.keep if name != ID)) if self.keep else (ID,)

    def scored(self, found: Iterable[str]) -> tuple[str, ...]:
        """The names in `found` that may be read for scoring."""
        found = set(found)
        names = dict.fromkeys(name for group in self._needed() for name in group)
        if not self.are_named:
            names |= dict.fromkeys(self.contexts())
        if any(self.is_chat(name) for name in names if name in found):
            names |= dict.fromkeys(self.names())
        return tuple(name for name in names if name in found)

    def contexts(self) -> tuple[str, ...]:
        """The names of columns that may hold contexts."""
        named = self.context or self.messages
        return (named,) if named else (CONTEXT, MESSAGES)

    def is_chat(self, name: str) -> bool:
        """Whether a column of contexts holds messages."""
        return name == (self.messages or MESSAGES) and name != self.context

    def names(self) -> tuple[str, ...]:
        """The names of columns that may say more about a conversation."""
        return tuple(name for name in NAMES if name not in {self.messages, self.candidate})

    def answers(self) -> tuple[str, ...]:
        """The names of columns that may hold candidates."""
        return (self.candidate,) if self.candidate else (CANDIDATE, CANDIDATES)

    def _needed(self) -> tuple[tuple[str, ...], ...]:
        """Groups of names; an input must have at least one name of each group."""
        if self.text:
            return ((self.text,),)
        if not self.are_named:
            return ((TEXT, CANDIDATE, CANDIDATES),)
        return self.contexts(), self.answers()

    def check(self, found: Iterable[str], where: object) -> None:
        """Refuse an input that lacks a column that is needed.

        Args:
            found: the names of the input's columns.
            where: what to call the input.

        Raises:
            InvalidInputError: a column is missing; the message says which, and what is there.
        """
        found = list(found)
        needed = [*((name,) for name in self.keep), *self._needed()]
        missing = [names for names in dict.fromkeys(needed) if not set(names) & set(found)]
        if missing:
            quoted = [" or ".join(f'"{name}"' for name in names) for names in missing]
            raise InvalidInputError(
                f"{where} has no column {', '.join(quoted)}; it has {listed(found)}. Name others "
                "with --text-column, or with --candidate-column and --context-column or "
                "--messages-column"
            )


def listed(names: Iterable[str]) -> str:
    """The names in quotes, for a message."""
    return ", ".join(f'"{name}"' for name in names) or "none"
