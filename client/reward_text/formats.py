r"""Conversations as the text that a model was trained on.

A reward is only as good as the text it is given, and models differ in how they were shown a
conversation. A `Format` describes it in a few pieces of text with names in braces. It is data, not
code: it travels with a model, and a client can take one from a server that it does not trust.

    >>> chat = Conversation(
    ...     [{"role": "assistant", "content": "Hi, how are you?"},
    ...      {"role": "user", "content": "I am fine. What is 2+2?"}],
    ...     prompt="This is demo bot.\n",
    ... )
    >>> FORMATS["chai"].context(chat)
    'This is demo bot.\n\nBot: Hi, how are you?\nUser: I am fine. What is 2+2?\nBot:'
    >>> FORMATS["chai"].candidate("The answer is 4!\n")
    ' The answer is 4!'

Sources: Chai's public code, `eval_rewards_api.py` and `examples.json` of chai-research/lmgym for
`chai`, `formatters.py` of chai-research/chaiverse for `pygmalion`.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import takewhile
from typing import TypeAlias

from reward_contract.errors import InvalidInputError

Message: TypeAlias = Mapping[str, object]
"""`{"role": "system" | "user" | "assistant", "content": text, "name": text}`, the name optional."""

ROLES = ("system", "user", "assistant")
_NAME = re.compile(r"\{(\w*)\}")
_PIECES = {
    "persona": {"bot_name", "user_name", "persona"},
    "prompt": {"bot_name", "user_name", "prompt"},
    "user": {"bot_name", "user_name", "content"},
    "assistant": {"bot_name", "user_name", "content"},
    "reply": {"bot_name", "user_name"},
    "answer": {"content"},
}
_NEEDED = {"user": "content", "assistant": "content", "answer": "content"}


@dataclass(frozen=True, slots=True)
class Conversation:
    """What was said so far, and between whom.

    Attributes:
        messages: in order, as chat templates and OpenAI's API take them. System messages are
            part of the prompt, and may only come first.
        bot_name: name of the assistant, for messages that carry no name of their own.
        user_name: name of the user, likewise.
        persona: who the bot is, for formats that have a place for it.
        prompt: what comes before the first message, such as a scene.
    """

    messages: Sequence[Message] = field(repr=False)
    bot_name: str = "Bot"
    user_name: str = "User"
    persona: str = field(default="", repr=False)
    prompt: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Format:
    """How a conversation becomes the text before a candidate, and a reply the candidate.

    Names in braces are replaced: `{bot_name}` and `{user_name}` in every piece but `answer`,
    `{persona}`, `{prompt}` and `{content}` in the pieces that have them. Other braces stay.

    Attributes:
        name: what it is called.
        persona: comes first, if the conversation has one.
        prompt: comes next, if there is one.
        user: a message of the user.
        assistant: a message of the bot.
        reply: the end of the context, which the candidate follows at once.
        answer: the candidate.
        strip: whether white space around messages and candidates is removed, so that the
            line break that ends a generation never moves the scored token.

    Raises:
        ValueError: a piece has a name that it may not have, or lacks `{content}`.
    """

    name: str
    user: str
    assistant: str
    persona: str = ""
    prompt: str = "{prompt}\n"
    reply: str = ""
    answer: str = "{content}"
    strip: bool = True

    def __post_init__(self) -> None:
        for piece, known in _PIECES.items():
            found = set(_NAME.findall(getattr(self, piece)))
            if unknown := found - known:
                raise ValueError(
                    f"the piece {piece!r} of the format {self.name!r} names {sorted(unknown)}; it "
                    f"can name {', '.join(sorted(known))}"
                )
            if (needed := _NEEDED.get(piece)) and needed not in found:
                raise ValueError(
                    f"the piece {piece!r} of the format {self.name!r} lacks {{content}}"
                )

    def context(self, conversation: "Conversation | Sequence[Message]") -> str:
        """The text that a candidate is appended to.

        Args:
            conversation: a `Conversation`, or only its messages.

        Raises:
            InvalidInputError: a message is not a mapping, has an invalid role, name or content,
                or is a system message after the conversation has begun.
        """
        chat = conversation
        if not isinstance(chat, Conversation):
            chat = Conversation(chat)
        return "".join(self._pieces(chat))

    def candidate(self, reply: str) -> str:
        """The text that is appended for a reply; empty for an empty reply."""
        content = reply.strip() if self.strip else reply
        return _filled(self.answer, {"content": content}) if content else ""

    def as_json(self) -> str:
        """The format as one line of JSON, to travel with a model."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Format":
        """The format that `as_json` wrote.

        Raises:
            ValueError: the text is not a format; the message says why.
        """
        found = json.loads(text)  # data, not arguments: whatever is wrong is a ValueError
        if not isinstance(found, dict):
            raise ValueError(f"a format is a JSON object, not {type(found).__name__}")  # noqa: TRY004
        kinds = {one.name: bool if one.name == "strip" else str for one in fields(cls)}
        for name, value in found.items():
            if not isinstance(value, kinds.get(name, ())):
                raise ValueError(f"a format has no {name!r} of type {type(value).__name__}")  # noqa: TRY004
        if missing := {"name", "user", "assistant"} - found.keys():
            raise ValueError(f"a format has to have {', '.join(sorted(missing))}")
        return cls(**found)

    def _pieces(self, chat: Conversation) -> Iterator[str]:
        messages = [_checked(index, message) for index, message in enumerate(chat.messages)]
        system = list(takewhile(lambda one: one.role == "system", messages))
        prompt = "\n".join(filter(None, [chat.prompt, *(one.content for one in system)]))
        names = {"bot_name": chat.bot_name, "user_name": chat.user_name}
        if chat.persona:
            yield _filled(self.persona, {**names, "persona": chat.persona})
        if prompt:
            yield _filled(self.prompt, {**names, "prompt": prompt})
        for index, one in enumerate(messages[len(system) :], start=len(system)):
            if one.role == "system":
                raise InvalidInputError(
                    f"message {index} is a system message after the conversation has begun, which "
                    f"no format has a place for; put it first, or leave it out"
                )
            content = one.content.strip() if self.strip else one.content
            own = {f"{'user' if one.role == 'user' else 'bot'}_name": one.name} if one.name else {}
            piece = self.user if one.role == "user" else self.assistant
            yield _filled(piece, {**names, **own, "content": content})
        yield _filled(self.reply, names)


@dataclass(frozen=True, slots=True)
class _Checked:
    role: str
    content: str
    name: str


def _checked(index: int, message: Message) -> _Checked:
    if not isinstance(message, Mapping):
        raise InvalidInputError(
            f'message {index} is {type(message).__name__}, not a mapping with "role" and "content"'
        )
    role, name = message.get("role"), message.get("name") or ""
    if role not in ROLES:
        raise InvalidInputError(f"message {index} has a role that is none of {', '.join(ROLES)}")
    if not isinstance(name, str):
        raise InvalidInputError(f"message {index} has a name of type {type(name).__name__}")
    return _Checked(str(role), _content(index, message.get("content")), name)


def _content(index: int, content: object) -> str:
    """A message's text, given as one or as a list of text parts, as in OpenAI's API."""
    if isinstance(content, Sequence) and not isinstance(content, str | bytes):
        texts = [part.get("text") for part in content if isinstance(part, Mapping)]
        if len(texts) == len(content) and all(isinstance(text, str) for text in texts):
            content = "".join(map(str, texts))
    if not isinstance(content, str):
        raise InvalidInputError(
            f'message {index} has a "content" that is neither text nor a list of text parts '
            f"({type(content).__name__}); the model reads only text"
        )
    return content


def _filled(piece: str, values: Mapping[str, str]) -> str:
    """The piece with its names replaced in one pass: names inside values are never replaced."""
    return _NAME.sub(lambda match: values.get(match[1], match[0]), piece)


FORMATS = {
    one.name: one
    for one in (
        # contents as they are, nothing between them
        Format("verbatim", "{content}", "{content}", "{persona}", "{prompt}", strip=False),
        # one message per line, without roles: the shipped checkpoint's
        Format("lines", "{content}\n", "{content}\n", "{persona}\n"),
        # Chai's models of 2023, the published reward models among them
        Format(
            "chai",
            user="User: {content}\n",
            assistant="Bot: {content}\n",
            persona="{persona}\n",
            reply="Bot:",
            answer=" {content}",
        ),
        # Chai's default for submitted models
        Format(
            "pygmalion",
            user="{user_name}: {content}\n",
            assistant="{bot_name}: {content}\n",
            persona="{bot_name}'s Persona: {persona}\n####\n",
            prompt="{prompt}\n<START>\n",
            reply="{bot_name}:",
            answer=" {content}",
        ),
    )
}
"""The formats that have a name of their own."""
