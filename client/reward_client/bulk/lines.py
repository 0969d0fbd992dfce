"""A line of the input as something to score, or the reason why it cannot be scored."""

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import NoReturn, TypeAlias

from reward_client.bulk.columns import (
    CANDIDATE,
    CANDIDATES,
    CONTEXT,
    ID,
    MESSAGES,
    TEXT,
    Columns,
)
from reward_client.errors import InvalidInputError
from reward_text import FORMATS, Context, context_of

_VERBATIM = FORMATS["verbatim"]
BY_FORM = Columns()  # each line's fields say what it is
_EXPECTED = 'expected "text", or "context" or "messages" with either "candidate" or "candidates"'
_NAMES = frozenset({TEXT, CONTEXT, MESSAGES, CANDIDATE, CANDIDATES})
_FORMS: dict[frozenset[str], tuple[str | None, str]] = {
    frozenset({TEXT}): (None, TEXT),
    **{
        frozenset({context, answer}): (context, answer)
        for context in (CONTEXT, MESSAGES)
        for answer in (CANDIDATE, CANDIDATES)
    },
}
_NO_ID = '"{}" is neither a string nor a finite number'
_NOT_FINITE = '"{}" holds a number that is not finite'


@dataclass(slots=True)  # a frozen one takes three times as long to make
class Line:
    """A line to score.

    Attributes:
        number: its number, from 1.
        context: a text or a conversation; None if the line has one whole text.
        candidates: at least one; the text itself if there is no context.
        is_group: whether the answer is a list.
        copied: what goes into the output unchanged: the id and what is kept.
        n_characters: number of characters of all its texts together.
    """

    number: int
    context: Context | None = field(repr=False)
    candidates: list[str] = field(repr=False)
    is_group: bool
    copied: Mapping[str, object] = field(repr=False)
    n_characters: int = field(init=False)

    def __post_init__(self) -> None:
        context = "" if self.context is None else self.context
        text = context if isinstance(context, str) else _VERBATIM.context(context)
        self.n_characters = len(text) + sum(map(len, self.candidates))

    @property
    def text(self) -> str | None:
        """The one text that is scored; None for groups and conversations, which are ranked."""
        context = "" if self.context is None else self.context
        if len(self.candidates) > 1 or not isinstance(context, str):
            return None
        return context + self.candidates[0]


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


class MalformedError(ValueError):
    """A line cannot be scored; carries the reason, never the line's text."""


def from_text(line: int, data: bytes) -> Item:
    """Read a line of a text file; blank lines are texts, too.

    Args:
        line: its number, from 1.
        data: its bytes, with or without the line break.
    """
    try:
        text = _decoded(_without_line_break(data))
    except MalformedError as error:
        return Rejection(line, str(error))
    return Line(line, None, [text], is_group=False, copied={})


def from_json(line: int, data: bytes, columns: Columns = BY_FORM) -> Item:
    """Read a line of a JSONL file.

    Args:
        line: its number, from 1.
        data: its bytes, with or without the line break.
        columns: which fields are read.
    """
    try:
        return from_fields(line, parsed(data), columns)
    except MalformedError as error:
        return Rejection(line, str(error))


def from_fields(line: int, fields: Mapping[str, object], columns: Columns = BY_FORM) -> Item:
    """Make a line from its fields.

    Args:
        line: its number, from 1.
        fields: values by name; those that are not in `columns` are ignored.
        columns: which fields are read.
    """
    try:
        copied = {name: _copied(name, fields[name]) for name in columns.copied if name in fields}
        context_name, name = _named(fields, columns) if columns.are_named else _form(fields)
        context = None if context_name is None else _context(fields, context_name, columns)
        if name == CANDIDATES or (columns.candidate and isinstance(fields[name], list)):
            texts = _strings(fields[name], name)
            return Line(line, context, texts, is_group=True, copied=copied)
        return Line(line, context, [_string(fields, name)], is_group=False, copied=copied)
    except MalformedError as error:
        return Rejection(line, str(error))


def parsed(data: bytes) -> dict[str, object]:
    """The JSON object of a line.

    Raises:
        MalformedError: the line is something else.
    """
    text = _decoded(data)
    if not text.strip():
        raise MalformedError("blank")
    try:
        fields = _JSON.decode(text)
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")
        raise MalformedError(f"not JSON: {what} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:  # huge numbers, thousands of brackets
        raise MalformedError(f"unreadable JSON: {error}") from error
    if not isinstance(fields, dict):
        raise MalformedError(f"a JSON {type(fields).__name__}, not an object")
    return fields


def check_id(fields: Mapping[str, object]) -> None:
    """Refuse an id that cannot be copied.

    Raises:
        MalformedError: the id cannot be copied; the message says why.
    """
    if ID in fields:
        _copied(ID, fields[ID])


def _form(fields: Mapping[str, object]) -> tuple[str | None, str]:
    """Names of the context, if there is one, and of what is scored."""
    found = _NAMES.intersection(fields)
    form = _FORMS.get(found)
    if form is None:
        raise MalformedError(_EXPECTED + (f", found {_quoted(found)}" if found else ""))
    return form


def _named(fields: Mapping[str, object], columns: Columns) -> tuple[str | None, str]:
    """Like `_form`, by the names that are given."""
    if columns.text:
        return None, _one_of((columns.text,), fields)
    return _one_of(columns.contexts(), fields), _one_of(columns.answers(), fields)


def _one_of(names: tuple[str, ...], fields: Mapping[str, object]) -> str:
    found = [name for name in names if name in fields]
    if len(found) != 1:
        quoted = [f'"{name}"' for name in names]
        raise MalformedError(
            f"has both {' and '.join(quoted)}" if found else f"has no {' or '.join(quoted)}"
        )
    return found[0]


def _without_line_break(data: bytes) -> bytes:
    """The line's text: a CR belongs to it unless an LF follows."""
    return data.removesuffix(b"\r\n") if data.endswith(b"\r\n") else data.removesuffix(b"\n")


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError(f"not UTF-8 at byte {error.start + 1}") from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


_JSON = json.JSONDecoder(parse_constant=_refuse)  # made once: json.loads makes one for each line


def _copied(name: str, value: object) -> object:
    """A value for the output; an id has to be a string, a number or null."""
    if isinstance(value, str):
        return _unicode(value, f'"{name}"')
    if value is None or type(value) is int:
        return value
    is_nested = isinstance(value, (list, dict))
    if name == ID and (is_nested or isinstance(value, bool)):
        raise MalformedError(_NO_ID.format(name))
    try:
        if is_nested or isinstance(value, float):
            json.dumps(value, allow_nan=False)
    except ValueError as error:
        reason = _NOT_FINITE if is_nested else _NO_ID
        raise MalformedError(reason.format(name)) from error
    return value


def _string(fields: Mapping[str, object], name: str) -> str:
    return _unicode(fields[name], f'"{name}"')


def _context(fields: Mapping[str, object], name: str, columns: Columns) -> Context:
    if not columns.is_chat(name):
        return _string(fields, name)
    names = {one: fields[one] for one in columns.names() if one in fields}
    try:
        return context_of({**names, MESSAGES: _messages(fields[name], name)})
    except InvalidInputError as error:
        raise MalformedError(str(error)) from error


def _messages(value: object, name: str) -> list[object]:
    """A list, or one that is written as JSON, as it has to be in CSV."""
    if isinstance(value, str):
        try:
            value = _JSON.decode(value)
        except (ValueError, RecursionError) as error:
            raise MalformedError(f'"{name}" is neither a list nor a list in JSON') from error
    if not isinstance(value, list):
        raise MalformedError(f'"{name}" is {type(value).__name__}, not a list')
    return value


def _strings(value: object, name: str) -> list[str]:
    if not isinstance(value, list):
        raise MalformedError(f'"{name}" is {type(value).__name__}, not a list')
    if not value:
        raise MalformedError(f'"{name}" is empty')
    return [_unicode(item, f"candidate {index}") for index, item in enumerate(value)]


def _unicode(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise MalformedError(f"{what} is {type(value).__name__}, not a string")
    try:
        if not value.isascii():
            value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise MalformedError(f"{what} holds a lone surrogate, which is not Unicode text") from error
    return value


def _quoted(names: AbstractSet[str]) -> str:
    return " and ".join(
        f'"{name}"' for name in (TEXT, CONTEXT, MESSAGES, CANDIDATE, CANDIDATES) if name in names
    )
