"""A line of the input as something to score, or the reason why not."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn, TypeAlias

from reward_client.errors import InvalidInputError
from reward_text import FORMATS, Context, context_of
from reward_text.usage import NAMES

FIELDS = ("id", "text", "context", "messages", "candidate", "candidates", *NAMES)
"""What is read of a line; other fields are left alone."""

_EXPECTED = 'expected "text", or "context" or "messages" with either "candidate" or "candidates"'
_FORMS = (
    {"text"},
    *(
        {context, candidates}
        for context in ("context", "messages")
        for candidates in ("candidate", "candidates")
    ),
)


@dataclass(frozen=True, slots=True)
class Line:
    """A line to score.

    Attributes:
        number: from 1.
        context: a text or a conversation; None where the line has one whole text.
        candidates: at least one; the text itself where there is no context.
        is_group: whether the answer is a list.
        copied: what goes into the output as it is: the id, or nothing.
    """

    number: int
    context: Context | None = field(repr=False)
    candidates: list[str] = field(repr=False)
    is_group: bool
    copied: Mapping[str, object] = field(repr=False)

    @property
    def text(self) -> str | None:
        """The one text that is scored; None for groups and conversations, which are ranked."""
        if len(self.candidates) > 1 or not isinstance(self.context, str | None):
            return None
        return (self.context or "") + self.candidates[0]

    @property
    def n_characters(self) -> int:
        """Of all its texts together."""
        context = self.context or ""
        text = context if isinstance(context, str) else FORMATS["verbatim"].context(context)
        return len(text) + sum(map(len, self.candidates))


@dataclass(frozen=True, slots=True)
class Rejection:
    """A line that cannot be scored.

    Attributes:
        line: its number, from 1.
        reason: what is wrong; never the line's text.
    """

    line: int
    reason: str


Item: TypeAlias = Line | Rejection


class _MalformedError(ValueError):
    """Carries the reason."""


def from_text(line: int, data: bytes) -> Item:
    """A line of a text file; blank ones are texts too.

    Args:
        line: its number, from 1.
        data: with or without its line break.
    """
    try:
        text = _decoded(_without_line_break(data))
    except _MalformedError as error:
        return Rejection(line, str(error))
    return Line(line, None, [text], is_group=False, copied={})


def from_json(line: int, data: bytes) -> Item:
    """A line of a JSONL file.

    Args:
        line: its number, from 1.
        data: with or without its line break.
    """
    try:
        return from_fields(line, _parsed(_decoded(data)))
    except _MalformedError as error:
        return Rejection(line, str(error))


def from_fields(line: int, fields: Mapping[str, object]) -> Item:
    """A line whose fields are known.

    Args:
        line: its number, from 1.
        fields: by name; those that are not in `FIELDS` are left alone.
    """
    try:
        copied = {"id": _id(fields["id"])} if "id" in fields else {}
        form = _form(fields)
        context = None if form == {"text"} else _context(fields)
        if "candidates" in form:
            return Line(line, context, _strings(fields["candidates"]), is_group=True, copied=copied)
        text = _string(fields, "text" if context is None else "candidate")
        return Line(line, context, [text], is_group=False, copied=copied)
    except _MalformedError as error:
        return Rejection(line, str(error))


def _form(fields: Mapping[str, object]) -> set[str]:
    form = fields.keys() & {"text", "context", "messages", "candidate", "candidates"}
    if form not in _FORMS:
        raise _MalformedError(_EXPECTED + (f", found {_quoted(form)}" if form else ""))
    return form


def _without_line_break(data: bytes) -> bytes:
    """A CR belongs to the text unless a LF follows it."""
    return data.removesuffix(b"\r\n") if data.endswith(b"\r\n") else data.removesuffix(b"\n")


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _MalformedError(f"not UTF-8 at byte {error.start + 1}") from error


def _parsed(text: str) -> dict[str, object]:
    if not text.strip():
        raise _MalformedError("blank")
    try:
        fields = json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")
        raise _MalformedError(f"not JSON: {what} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:  # huge numbers, thousands of brackets
        raise _MalformedError(f"no JSON we read: {error}") from error
    if not isinstance(fields, dict):
        raise _MalformedError(f"a JSON {type(fields).__name__}, not an object")
    return fields


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def _id(value: object) -> object:
    """Strings, numbers and null: what every format can hold."""
    if isinstance(value, str):
        return _unicode(value, '"id"')
    if isinstance(value, float) and math.isfinite(value):
        return value
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise _MalformedError('"id" is no string and no finite number')


def _string(fields: Mapping[str, object], name: str) -> str:
    return _unicode(fields[name], f'"{name}"')


def _context(fields: Mapping[str, object]) -> Context:
    if "messages" not in fields:
        return _string(fields, "context")
    try:
        return context_of(fields)
    except InvalidInputError as error:
        raise _MalformedError(str(error)) from error


def _strings(value: object) -> list[str]:
    if not isinstance(value, list):
        raise _MalformedError(f'"candidates" is {type(value).__name__}, not a list')
    if not value:
        raise _MalformedError('"candidates" is empty')
    return [_unicode(item, f"candidate {index}") for index, item in enumerate(value)]


def _unicode(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise _MalformedError(f"{what} is {type(value).__name__}, not a string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _MalformedError(f"{what} holds a lone surrogate, which is no Unicode text") from error
    return value


def _quoted(names: set[str]) -> str:
    return " and ".join(f'"{name}"' for name in FIELDS if name in names)
