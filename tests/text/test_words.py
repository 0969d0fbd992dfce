"""Ids of known words are those of the tokenizer, whatever the text."""

import itertools
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_text import Tokenizer, words
from reward_text.words import PLAIN, Words

TOKENIZER = Tokenizer()
PIECES = ["'s", "'S", "'re", "'ll", "'", " ", "  ", "\t", "\n", "\r\n", "\x1c", "\x0b", "\x7f", "_"]
PIECES += [
    "a",
    "Z",
    "é",
    "ß",
    "\u2019",
    "“",
    "—",
    "…",
    "7",
    "42",
    "hello",
    " world",
    "!?",
    "<|endoftext|>",
]
PIECES += ["\x85", "\xa0", "ª", "²", "\xd7", "ж", "字", "😀", "\u2003", "\u2028", "\u0301"]


def by_tokenizer(text: str) -> list[int]:
    return TOKENIZER._bpe.encode(text, add_special_tokens=False).ids


def ids_of(learnt: Words, text: str) -> list[int] | None:
    ids = learnt.ids(text)
    return None if ids is None else np.frombuffer(ids, np.int32).tolist()


@settings(max_examples=400)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.characters(codec="utf-8")), max_size=30))
def test_words_are_encoded_as_the_tokenizer_does(pieces: list[str]) -> None:
    text = "".join(pieces)
    learnt = Words(by_tokenizer)
    found = [ids_of(learnt, text), ids_of(learnt, text)]
    assert found in ([None, None], [by_tokenizer(text)] * 2)
    if PLAIN.fullmatch(text) and "<|endoftext|>" not in text:
        assert found[0] is not None


def test_every_character_and_pair_of_ascii_is_split_as_gpt2_does() -> None:
    characters = [chr(code) for code in range(sys.maxunicode) if PLAIN.fullmatch(chr(code))]
    assert len(characters) == 128 + 62 + 24
    assert {unicodedata.category(one)[0] for one in characters[128:]} == {"L", "P"}
    texts = [f"{one}a{two}{one} {two}" for one in characters for two in characters[:128]]
    learnt = Words(by_tokenizer)
    assert [ids_of(learnt, text) for text in texts] == list(map(by_tokenizer, texts))


def test_every_run_of_blanks_is_split_as_gpt2_does() -> None:
    blanks = [" ", "\n", "\r", "\t", "\xa0", "\u3000"]
    runs = ["".join(run) for n in range(6) for run in itertools.product(blanks[:4], repeat=n)]
    runs += ["".join(run) for run in itertools.product(blanks, repeat=3)]
    learnt = Words(by_tokenizer)
    forms = ("{0}a", "a{0}", "a{0}'s", "😀{0}😀{0}")
    for text in (form.format(run) for form in forms for run in runs):
        assert ids_of(learnt, text) in (None, by_tokenizer(text)), repr(text)


@pytest.mark.parametrize("text", ["hi 😀 there", "Привет, как дела?", "a<|endoftext|> b", "a\n\nb"])
def test_words_of_any_characters_are_known_if_they_are_short(text: str) -> None:
    learnt = Words(by_tokenizer)
    assert ids_of(learnt, text) == by_tokenizer(text)
    learnt._encode = lambda _: pytest.fail("was known")
    assert ids_of(learnt, text) == by_tokenizer(text)


def test_what_is_known_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def encode(text: str) -> list[int]:
        asked.append(text)
        return by_tokenizer(text)

    learnt = Words(encode)
    long = "x" * 1000
    for _ in range(3):
        text = f"to be or not to be {long}"
        assert ids_of(learnt, text) == by_tokenizer(text)
    assert asked == ["to", " be", " or", " not", " to", f" {long}", f" {long}", f" {long}"]
    monkeypatch.setattr(words, "MAX_KEPT", 3)
    for number in range(10):
        assert ids_of(learnt, f"{number} and") == by_tokenizer(f"{number} and")
    assert len(learnt._pieces) <= 3
    assert len(learnt._words) <= 3
