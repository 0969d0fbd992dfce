"""Ids of known words are those of the tokenizer, whatever the text."""

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


def by_tokenizer(texts: list[str]) -> list[list[int]]:
    encodings = TOKENIZER._bpe.encode_batch_fast(texts, add_special_tokens=False)
    return [one.ids for one in encodings]


def ids_of(learnt: Words, text: str) -> list[int] | None:
    ids = learnt.ids(text)
    return None if ids is None else np.frombuffer(ids, np.int32).tolist()


@settings(max_examples=400)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.characters(codec="utf-8")), max_size=30))
def test_words_are_encoded_as_the_tokenizer_does(pieces: list[str]) -> None:
    text = "".join(pieces)
    found = ids_of(Words(by_tokenizer), text)
    assert found in (None, by_tokenizer([text])[0])
    assert (found is None) == (PLAIN.fullmatch(text) is None or "<|endoftext|>" in text)


def test_every_character_and_pair_of_ascii_is_split_as_gpt2_does() -> None:
    characters = [chr(code) for code in range(sys.maxunicode) if PLAIN.fullmatch(chr(code))]
    assert len(characters) == 128 + 62 + 24
    assert {unicodedata.category(one)[0] for one in characters[128:]} == {"L", "P"}
    texts = [f"{one}a{two}{one} {two}" for one in characters for two in characters[:128]]
    learnt = Words(by_tokenizer)
    assert [ids_of(learnt, text) for text in texts] == by_tokenizer(texts)


def test_what_is_known_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def encode(texts: list[str]) -> list[list[int]]:
        asked.extend(texts)
        return by_tokenizer(texts)

    learnt = Words(encode)
    long = "x" * 1000
    for _ in range(3):
        assert (
            ids_of(learnt, f"to be or not to be {long}")
            == by_tokenizer([f"to be or not to be {long}"])[0]
        )
    assert asked == ["to", " be", " or", " not", " to", f" {long}", f" {long}", f" {long}"]
    monkeypatch.setattr(words, "MAX_KEPT", 3)
    for number in range(10):
        assert ids_of(learnt, f"{number} and") == by_tokenizer([f"{number} and"])[0]
    assert len(learnt._pieces) <= 3
    assert len(learnt._after_space) <= 3
