"""Token ids against `transformers`' own GPT-2 tokenizer with the model card's settings."""

import json
from importlib import resources
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hostile import HOSTILE, PIECES
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_client.errors import ContractError, InvalidInputError
from reward_text import Tokenizer, tokens

if TYPE_CHECKING:
    from transformers import GPT2Tokenizer

PAD = 50256


@pytest.fixture(scope="module")
def card() -> "GPT2Tokenizer":
    """The tokenizer of the model card's snippet, from the same two files."""
    transformers = pytest.importorskip("transformers", reason="its tokenizer is the reference")
    data = Path(str(resources.files("reward_text") / "data"))
    tokenizer = transformers.GPT2Tokenizer(
        vocab=str(data / "encoder.json"), merges=str(data / "vocab.bpe")
    )
    tokenizer.pad_token_id = PAD
    tokenizer.truncation_side = "left"
    tokenizer.padding_side = "right"
    return tokenizer


@pytest.fixture(scope="module")
def dialogues() -> list[list[str]]:
    """The first 400 of 7,168 real dialogues, turn by turn."""
    text = (resources.files("chitchat_dataset") / "dataset.json").read_text("utf-8")
    return [
        [" ".join(message["text"] for message in turn) for turn in dialogue["messages"]]
        for dialogue in list(json.loads(text).values())[:400]
    ]


def assert_same(card: "GPT2Tokenizer", texts: list[str]) -> None:
    wanted = card(texts, padding="max_length", truncation=True, max_length=256)["input_ids"]
    found = Tokenizer().encode_rows(texts)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, np.array(wanted).reshape(len(texts), 256))


def test_real_utterances(card: "GPT2Tokenizer", dialogues: list[list[str]]) -> None:
    utterances = [turn for dialogue in dialogues for turn in dialogue]
    assert len(utterances) > 5000
    assert_same(card, utterances)


def test_joined_conversations(card: "GPT2Tokenizer", dialogues: list[list[str]]) -> None:
    joined = [
        text for dialogue in dialogues[:150] for text in accumulate(dialogue, "{}\n{}".format)
    ]
    assert len(joined) > 2000
    assert_same(card, joined)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_texts(card: "GPT2Tokenizer", text: str) -> None:
    assert_same(card, [text, f"{text}!", f"Hi {text}"])


def test_a_megabyte_without_a_space(card: "GPT2Tokenizer") -> None:
    rng = np.random.default_rng(0)
    assert_same(card, ["".join(rng.choice(list("abcdefg"), 1_000_000))])


@settings(max_examples=300)
@given(texts=st.lists(st.lists(PIECES, max_size=8).map("".join), max_size=4))
def test_any_text(card: "GPT2Tokenizer", texts: list[str]) -> None:
    unicode_texts = [
        text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts
    ]
    if unicode_texts:
        assert_same(card, unicode_texts)


def test_rows_are_padded_to_the_same_width_whatever_is_in_them() -> None:
    assert Tokenizer().encode_rows([]).shape == (0, 256)
    assert Tokenizer().encode_rows(["Hi"]).shape == (1, 256)
    assert Tokenizer().encode_rows(["Hi " * 999, ""]).shape == (2, 256)


@pytest.mark.parametrize("text", ["\ud800", "a\udc80b", "fine \udfff"])
def test_a_lone_surrogate_is_refused_by_row(card: "GPT2Tokenizer", text: str) -> None:
    with pytest.raises(TypeError):  # what the card's snippet does with it
        card([text])
    with pytest.raises(InvalidInputError, match="row 1 holds a lone surrogate") as caught:
        Tokenizer().encode_rows(["fine", text, "fine"])
    assert caught.value.row == 1
    assert text not in str(caught.value)
    mended = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert_same(card, [mended])  # the remedy that the message gives


@pytest.mark.parametrize("texts", ["a string", b"bytes", None, 7, {"a": 1}, iter(["a"])])
def test_what_is_no_list_of_texts_is_refused(texts: object) -> None:
    with pytest.raises(InvalidInputError, match="expected a list of texts"):
        Tokenizer().encode_rows(texts)


@pytest.mark.parametrize("text", [None, b"bytes", 7, ["nested"]])
def test_a_row_that_is_no_string_is_named(text: object) -> None:
    with pytest.raises(InvalidInputError, match="row 2 is") as caught:
        Tokenizer().encode_rows(["a", "b", text])
    assert caught.value.row == 2


def test_a_damaged_vocabulary_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    source = resources.files("reward_text") / "data"
    for name in ("encoder.json", "vocab.bpe"):
        (data / name).write_bytes((source / name).read_bytes())
    merges = (data / "vocab.bpe").read_bytes()
    (data / "vocab.bpe").write_bytes(merges.replace(b"t h", b"t x", 1))
    monkeypatch.setattr(tokens.resources, "files", lambda _package: tmp_path)
    with pytest.raises(ContractError, match="reinstall gpt2-reward"):
        tokens._bpe.__wrapped__()
