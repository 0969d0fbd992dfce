"""Which columns of an input are scored, and which are copied into the output."""

from collections.abc import Iterable
from dataclasses import dataclass

from reward_client.errors import InvalidInputError

TEXT, CONTEXT, CANDIDATE, CANDIDATES, ID = "text", "context", "candidate", "candidates", "id"

OWN = ("line", "reward", "rewards", "model_version")
"""What the output has by itself."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of columns, or of fields where lines are JSON.

    Without any of the first three, each line says by its fields what it is: `text`, or `context`
    with `candidate` or with a list `candidates`.

    Attributes:
        text: of whole texts.
        context: of contexts; `context` if None and `candidate` is given.
        candidate: of candidates, a string or a list of strings; `candidate` or `candidates` if
            None and `context` is given.
        keep: copied into the output with their types, as `id` always is.

    Raises:
        InvalidInputError: both whole texts and contexts or candidates, or a name in `keep` that
            the output needs itself.
    """

    text: str | None = None
    context: str | None = None
    candidate: str | None = None
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.text and (self.context or self.candidate):
            raise InvalidInputError(
                "a text column is scored by itself; name either it, or those of context and "
                "candidate"
            )
        if taken := [name for name in self.keep if name in OWN]:
            raise InvalidInputError(
                f"cannot keep {listed(taken)}: the output has columns of its own named so; "
                "rename them in the input"
            )

    @property
    def are_named(self) -> bool:
        """Whether the form of a line is known beforehand."""
        return bool(self.text or self.context or self.candidate)

    @property
    def copied(self) -> tuple[str, ...]:
        """All that is copied, `id` first."""
        return (ID, *(name for name in self.keep if name != ID)) if self.keep else (ID,)

    def scored(self) -> tuple[str, ...]:
        """All that may be read for scoring."""
        if self.text:
            return (self.text,)
        if not self.are_named:
            return (TEXT, CONTEXT, CANDIDATE, CANDIDATES)
        return (self.context or CONTEXT, *self.answers())

    def answers(self) -> tuple[str, ...]:
        """Those that candidates may be in."""
        return (self.candidate,) if self.candidate else (CANDIDATE, CANDIDATES)

    def check(self, found: Iterable[str], where: object) -> None:
        """Refuse an input that lacks a column that is needed.

        Args:
            found: the names that it has.
            where: what to call it.

        Raises:
            InvalidInputError: it says what is missing and what is there.
        """
        found = list(found)
        missing = [name for name in self.keep if name not in found]
        if self.text or self.context:
            missing += {self.text or self.context or ""} - set(found)
        elif self.candidate and CONTEXT not in found:
            missing.append(CONTEXT)
        answers = (self.text,) if self.text else self.answers()
        if not self.are_named:
            answers = (TEXT, CANDIDATE, CANDIDATES)
        if not set(answers) & {*found, *missing}:
            missing.append(" or ".join(f'"{name}"' for name in answers))
        if missing:
            names = ", ".join(name if '"' in name else f'"{name}"' for name in missing)
            raise InvalidInputError(
                f"{where} has no column {names}; it has {listed(found)}. Name others with "
                "--text-column, or --context-column and --candidate-column"
            )


def listed(names: Iterable[str]) -> str:
    """Names for a message."""
    return ", ".join(f'"{name}"' for name in names) or "none"
