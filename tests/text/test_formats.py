"""Conversations as models were trained on them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_contract.errors import InvalidInputError
from reward_export.conversations import conversations
from reward_text import Tokenizer
from reward_text.formats import FORMATS, Conversation, Format, Message

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
MESSAGES = st.lists(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(["user", "assistant"]),
        TEXT,
    )
)


def chat(*contents: str) -> list[Message]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]


def test_chais_own_example_comes_out_token_for_token() -> None:
    said = Conversation(
        [
            {"role": "assistant", "content": "Hi, how are you?"},
            {"role": "user", "content": "I am fine. What is 2+2?"},
        ],
        prompt="This is demo bot.\n",
    )
    context = FORMATS["chai"].context(said)
    assert context == (
        "This is demo bot.\n\nBot: Hi, how are you?\nUser: I am fine. What is 2+2?\nBot:"
    )
    encode = Tokenizer().encode
    candidate = FORMATS["chai"].candidate(" The answer is 4!")
    assert candidate == " The answer is 4!"
    assert encode(context + candidate).tolist() == [
        *encode(context).tolist(),
        *encode(" The answer is 4!").tolist(),
    ]


def test_pygmalion_has_persona_prompt_and_names() -> None:
    said = Conversation(
        chat("Hello", "Hm."), bot_name="Ada", user_name="Bo", persona="Shy.", prompt="A park."
    )
    assert FORMATS["pygmalion"].context(said) == (
        "Ada's Persona: Shy.\n####\nA park.\n<START>\nBo: Hello\nAda: Hm.\nAda:"
    )


def test_messages_may_carry_names_of_their_own() -> None:
    said = [{"role": "user", "content": "Hi", "name": "Cy"}, *chat("Oh")]
    assert FORMATS["pygmalion"].context(said) == "Cy: Hi\nUser: Oh\nBot:"
    assert FORMATS["chai"].context(said) == "User: Hi\nUser: Oh\nBot:"  # it has no names


def test_lines_are_what_the_shipped_checkpoint_was_trained_on() -> None:
    turns = conversations()[0].turns[:3]
    assert FORMATS["lines"].context(chat(*turns)) == "".join(f"{turn}\n" for turn in turns)
    assert FORMATS["lines"].candidate("Fine.\n") == "Fine."


def test_system_messages_at_the_beginning_are_the_prompt() -> None:
    said = [{"role": "system", "content": content} for content in ("Be kind.", "Be brief.")]
    expected = "A park.\nBe kind.\nBe brief.\nUser: Hi\nBot:"
    assert FORMATS["chai"].context(Conversation([*said, *chat("Hi")], prompt="A park.")) == expected


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"role": "tool", "content": "x"}, "message 1 has a role that is none of"),
        ({"role": "system", "content": "x"}, "message 1 is a system message after"),
        ({"role": "user", "content": None}, "message 1 has a .content. that is neither text"),
        ({"role": "user", "content": [{"type": "image"}]}, "neither text nor a list of text parts"),
        ({"role": "user", "content": b"x"}, "bytes"),
        ({"role": "user", "content": "x", "name": 7}, "a name of type int"),
        ("secret", "message 1 is str, not a mapping"),
    ],
)
def test_what_is_no_message_is_named_without_its_text(message: Message, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason) as caught:
        FORMATS["chai"].context([*chat("secret"), message])
    assert "secret" not in str(caught.value)


def test_parts_of_text_are_joined() -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    said = [{"role": "user", "content": parts}]
    assert FORMATS["chai"].context(said) == "User: one two\nBot:"


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS.keys())
@given(messages=MESSAGES, reply=TEXT)
def test_what_people_write_is_never_taken_for_a_name(
    form: Format, messages: list[Message], reply: str
) -> None:
    hostile = [*messages, *chat("{bot_name} {content} {0} {} {content.__class__}")]
    text = form.context(Conversation(hostile, bot_name="{content}", prompt="{user_name}"))
    assert "{bot_name} {content} {0} {} {content.__class__}" in text
    assert "{user_name}" in text
    stripped = reply.strip() if form.strip else reply
    assert form.candidate(reply).endswith(stripped)


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS.keys())
def test_a_line_break_behind_a_reply_never_moves_the_scored_token(form: Format) -> None:
    expected = "Fine.\n" if form.name == "verbatim" else form.candidate("Fine.")
    assert form.candidate("Fine.\n") == expected


@pytest.mark.parametrize("name", ["lines", "chai", "pygmalion"])
def test_the_whole_context_is_one_shared_prefix(name: str) -> None:
    encode, form = Tokenizer().encode, FORMATS[name]
    for one in conversations():
        *said, reply = (" ".join(turn.split())[:60] for turn in one.turns[:4])
        context, candidate = form.context(chat(*said)), form.candidate(reply)
        joined = [*encode(context).tolist(), *encode(candidate).tolist()]
        assert encode(context + candidate).tolist() == joined


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS.keys())
def test_a_format_travels_as_json(form: Format) -> None:
    assert Format.from_json(form.as_json()) == form


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "a JSON object, not list"),
        ("nonsense", "Expecting value"),
        ('{"name": "x", "user": "{content}"}', "has to have assistant"),
        ('{"name": "x", "user": "{content}", "assistant": 7}', "no 'assistant' of type int"),
        ('{"name": "x", "user": "{content}", "assistant": "{content}", "eval": "x"}', "no 'eval'"),
        ('{"name": "x", "user": "{content}", "assistant": "nothing"}', "lacks {content}"),
        ('{"name": "x", "user": "{content}", "assistant": "{content}{self}"}', r"names \['self'\]"),
        ('{"name": "x", "user": "{content}", "assistant": "{content}{}"}', r"names \[''\]"),
    ],
)
def test_what_is_no_format_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Format.from_json(text)


def test_texts_are_not_shown() -> None:
    said = Conversation(chat("secret"), prompt="secret", persona="secret")
    assert "secret" not in repr(said)
