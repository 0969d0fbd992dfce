"""How to use a model: its conversation format, its window, and its calibration.

These differ between models and travel with them: in a file next to a checkpoint, in the manifest
of an exported version, and in what a server shows of each version. Clients read and follow them.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeAlias, TypeGuard, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reward_contract import CONTRACT
from reward_contract.errors import InvalidInputError, NoFormatError
from reward_text.formats import FORMATS, Conversation, Format, Message
from reward_text.tokens import check_texts

USAGE_NAME = "reward.json"
"""File in a checkpoint's folder: a JSON object as `Usage.as_json` writes it."""

Found = TypeVar("Found")

NAMES = ("bot_name", "user_name", "persona", "prompt")
"""Fields of a conversation besides its messages."""

Context: TypeAlias = str | Conversation | Sequence[Message]
"""What candidates are replies to: a text, which is used unchanged, or a conversation."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """How a reward becomes a probability: sigmoid(scale * reward + bias).

    The loss of these models is binary cross entropy, so the reward itself is the logit of
    acceptance, and a scale of 1 and a bias of 0 are what training aimed at. Other values are
    fitted on labels that the model has not seen (Platt scaling). Higher rewards are always
    higher probabilities.

    Attributes:
        scale: above 0.
        bias: any finite number.

    Raises:
        ValueError: the scale is not above 0, or one of them is not finite.

    Example:
        >>> Calibration().probabilities([0.0, -1e9, float("nan")]).tolist()
        [0.5, 0.0, nan]
    """

    scale: float = 1.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        if not (self.scale > 0 and math.isfinite(self.scale) and math.isfinite(self.bias)):
            raise ValueError(
                f"a calibration has a scale above 0 and a bias, both finite, not {self.scale} "
                f"and {self.bias}"
            )

    def probabilities(self, rewards: ArrayLike) -> NDArray[np.float32]:
        """The probability for each reward, NaN for NaN. -> float32, of the same shape."""
        # tanh does not overflow, whatever the reward
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * self.logits(rewards))), np.float32)

    def logits(self, rewards: ArrayLike) -> NDArray[np.float64]:
        """The log odds of those probabilities. -> float64, of the same shape."""
        return np.asarray(self.scale * np.asarray(rewards, np.float64) + self.bias)


@dataclass(frozen=True, slots=True)
class Usage:
    """How to use a model.

    Attributes:
        chat_format: format of its conversations; None if unknown: it then takes only texts.
        max_tokens: how many tokens of a text it reads, counted from the end.
        calibration: how its rewards become probabilities.

    Raises:
        ValueError: a window of less than one token.
    """

    chat_format: Format | None = None
    max_tokens: int = CONTRACT.max_tokens
    calibration: Calibration = field(default_factory=Calibration)

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"a window has at least one token, not {self.max_tokens}")

    def texts(self, context: Context, candidates: Sequence[str]) -> tuple[str, Sequence[str]]:
        """The context and the candidates of a group as texts, to be joined and scored.

        Args:
            context: a conversation; or a text, in which case both are returned unchanged,
                whatever the format.
            candidates: the replies.

        Raises:
            NoFormatError: the context is a conversation, and the format is unknown.
            InvalidInputError: the context, a message or a candidate is not valid.
        """
        if isinstance(context, str):
            return context, candidates
        if not is_chat(context):
            raise InvalidInputError(
                f"the context is {type(context).__name__}, neither text (str) nor messages; decode "
                "or convert it first"
            )
        if self.chat_format is None:
            raise NoFormatError(
                "the context is a conversation, and the model does not say in which format it "
                "reads conversations; name the format when the model is exported (--format) or "
                "when the client is made (chat_format), or send the context as text"
            )
        check_texts(candidates)
        replies = [self.chat_format.candidate(reply) for reply in candidates]
        return self.chat_format.context(context), replies

    def as_json(self) -> dict[str, object]:
        """The usage as a JSON object, without an unknown format or the default calibration."""
        found: dict[str, object] = {"max_tokens": self.max_tokens}
        if self.chat_format is not None:
            found["chat_format"] = asdict(self.chat_format)
        if self.calibration != Calibration():
            found["calibration"] = asdict(self.calibration)
        return found

    @classmethod
    def from_json(cls, found: object) -> "Usage":
        """The usage that `as_json` wrote; fields that are missing get the default.

        Raises:
            ValueError: `found` is not a usage; the message says why.
        """
        values = _typed(found, "the usage of a model", dict)
        form, calibration = values.get("chat_format"), values.get("calibration")
        return cls(
            None if form is None else Format.from_json(json.dumps(form)),
            _typed(values.get("max_tokens", CONTRACT.max_tokens), "max_tokens", int),
            Calibration() if calibration is None else _calibration(calibration),
        )

    @classmethod
    def read(cls, file: Path) -> "Usage":
        """The usage in a checkpoint's `USAGE_NAME`.

        Raises:
            OSError: the file cannot be read.
            ValueError: it holds something else.
        """
        try:
            return cls.from_json(json.loads(file.read_text("utf-8")))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error

    def write(self, folder: Path) -> None:
        """Write `USAGE_NAME` into a checkpoint's folder.

        Raises:
            OSError: it cannot be written.
        """
        text = json.dumps(self.as_json(), indent=2, ensure_ascii=False)
        (folder / USAGE_NAME).write_text(f"{text}\n", "utf-8")


def is_chat(context: object) -> "TypeGuard[Conversation | Sequence[Message]]":
    """Whether a context is a conversation, which a format makes into a text."""
    if isinstance(context, Conversation):
        return True
    return isinstance(context, Sequence) and not isinstance(context, str | bytes | bytearray)


def context_of(fields: Mapping[str, object]) -> Context:
    """The context in a JSON object: its "messages", or its "context".

    Besides "messages" there may be "bot_name", "user_name", "persona" and "prompt", all texts, as
    in `Conversation`; null is as if they were missing.

    Raises:
        KeyError: the object has neither.
        InvalidInputError: a message or one of the other fields is not valid; the error says
            which one, never what it holds.
    """
    if fields.get("messages") is None:  # null in columns where other rows have some
        context: Context = fields["context"]  # type: ignore[assignment]  # refused by the tokenizer
        if is_chat(context):
            return _checked(context if isinstance(context, Conversation) else Conversation(context))
        return context
    messages = fields["messages"]
    names = {key: fields[key] for key in NAMES if fields.get(key) is not None}
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        raise InvalidInputError(f'"messages" is {type(messages).__name__}, not a list')
    for name, value in names.items():
        if not isinstance(value, str):
            raise InvalidInputError(f'"{name}" is {type(value).__name__}, not a string')
    return _checked(Conversation(messages, **names))  # type: ignore[arg-type]  # checked above


def _checked(chat: Conversation) -> Conversation:
    text = FORMATS["pygmalion"].context(chat)  # uses all names; what one format refuses, all do
    try:
        f"{text}{chat.user_name}".encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            "the messages hold a lone surrogate, which is not Unicode text"
        ) from error
    return chat


def format_named(name: str) -> Format:
    """A format by its name, or by the name of a file that holds one.

    Args:
        name: a key of `FORMATS`, or a path of a JSON file: a format, or a `USAGE_NAME` with one.

    Raises:
        ValueError: neither; the message says why.
    """
    if name in FORMATS:
        return FORMATS[name]
    try:
        text = Path(name).read_text("utf-8")
    except OSError as error:
        raise ValueError(
            f"{name!r} is neither a format ({', '.join(FORMATS)}) nor a file that can be read: "
            f"{error.strerror}"
        ) from error
    found = json.loads(text)
    if isinstance(found, dict) and "chat_format" in found:
        text = json.dumps(found["chat_format"])
    return Format.from_json(text)


def _calibration(found: object) -> Calibration:
    values = _typed(found, "a calibration", dict)
    if values.keys() != {"scale", "bias"}:
        raise ValueError(f"a calibration has scale and bias, not {', '.join(values)}")
    numbers = [float(_typed(values[name], name, (int, float))) for name in ("scale", "bias")]
    return Calibration(*numbers)


def _typed(found: object, what: str, kind: type[Found] | tuple[type[Found], ...]) -> Found:
    # data, not arguments: whatever is wrong is a ValueError
    if not isinstance(found, kind) or isinstance(found, bool):
        raise ValueError(f"{what} is of type {type(found).__name__}")  # noqa: TRY004
    return found
