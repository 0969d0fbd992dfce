"""Cuts, long texts and groups, against the tokens of the whole joined text."""
# ruff: noqa: RUF001  # scripts have their own punctuation

import numpy as np
import pytest
from hostile import HOSTILE, PIECES
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from reward_client import InvalidInputError, Tokenizer
from reward_text import tokens

MEGABYTE = 1_000_000
PAD = 50256


def unicode_text(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


TEXTS = st.lists(PIECES, max_size=12).map("".join).map(unicode_text)


def whole(text: str) -> list[int]:
    """Tokens of a text that was not cut."""
    ids: list[int] = Tokenizer()._bpe.encode(text, add_special_tokens=False).ids
    return ids


def padded(rows: list[list[int]]) -> NDArray[np.int32]:
    return np.array([row[-256:] + [PAD] * (256 - len(row)) for row in rows], np.int32)


CUTS = Tokenizer()._cuts


def all_cuts(text: str) -> list[int]:
    found, end = [], len(text)
    while cut := CUTS.last(text, end):
        found.append(cut)
        end = cut
    return found


@settings(max_examples=1000)
@given(text=TEXTS)
@example(text="x<|endoftext|> y")
@example(text="x<|endoftext|>")
@example(text="don't  \n you'll ")
@example(text="!!'s ''t é'sé 'rea 'Sa x'S")
@example(text="今天天气怎么样？我想去'公园's，散步。")
@example(text="a\u3000b\u00a0 c\u2003'd 1'2 \u00b2x\u0301y")
def test_tokens_on_both_sides_of_a_cut_are_those_of_the_whole(text: str) -> None:
    for cut in all_cuts(text):
        assert whole(text[:cut]) + whole(text[cut:]) == whole(text)


def test_cuts_are_before_blanks_and_punctuation_and_in_other_scripts() -> None:
    assert all_cuts("one two") == [3]
    assert all_cuts("so, I") == [3, 2]
    assert len(all_cuts("今天天气怎么样我想去公园散步")) >= 3
    assert all_cuts("it's<|endoftext|>") == [4]
    assert all_cuts("") == all_cuts("x") == all_cuts(" x") == []


def test_every_white_space_of_python_is_one_for_the_cut() -> None:
    blanks = [chr(code) for code in range(0x110000) if chr(code).isspace()]
    assert len(blanks) >= 25
    assert not [blank for blank in blanks if all_cuts(f"{blank}漢")]


@settings(max_examples=300)
@given(text=TEXTS, n_repeats=st.integers(1, 60))
def test_the_end_of_a_long_text_is_that_of_the_whole(text: str, n_repeats: int) -> None:
    text *= n_repeats
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "TAIL_BYTES", 40)  # far too few: more has to be fetched
        encoded = Tokenizer().encode_texts([text, "short"])
    ids = whole(text)
    np.testing.assert_array_equal(encoded.ids, padded([ids, whole("short")]))
    assert encoded.n_truncated == (len(ids) > 256)
    assert encoded.n_tokens == min(len(ids), 256) + 1


@settings(max_examples=300)
@given(context=TEXTS, candidates=st.lists(TEXTS, max_size=5), n_repeats=st.integers(1, 40))
def test_a_group_has_the_tokens_of_its_joined_texts(
    context: str, candidates: list[str], n_repeats: int
) -> None:
    context *= n_repeats
    found = Tokenizer().encode_group(context, candidates)
    wanted = Tokenizer().encode_texts([context + candidate for candidate in candidates])
    np.testing.assert_array_equal(found.ids, wanted.ids)
    assert (found.n_tokens, found.n_truncated) == (wanted.n_tokens, wanted.n_truncated)


@pytest.mark.parametrize("context", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_contexts(context: str) -> None:
    candidates = ["", "reply", " reply", "text|>", "'s", f"{context[:300]} again"]
    found = Tokenizer().encode_group(context, candidates)
    joined = [whole(context + candidate) for candidate in candidates]
    np.testing.assert_array_equal(found.ids, padded(joined))


def reference_shared_context(context: str, candidates: list[str]) -> NDArray[np.int32]:
    """The policy as docs/truncation.md states it, on whole texts."""
    n_shared = len(whole(context[: CUTS.last(context)]))
    joined = [whole(context + candidate) for candidate in candidates]
    takes_part = [len(row) - n_shared < 256 for row in joined]
    longest = max(
        (len(row) for row, part in zip(joined, takes_part, strict=True) if part), default=0
    )
    n_lost = max(0, longest - 256)
    return padded(
        [row[n_lost:] if part else row for row, part in zip(joined, takes_part, strict=True)]
    )


@settings(max_examples=300)
@given(
    context=TEXTS,
    candidates=st.lists(TEXTS, min_size=1, max_size=5),
    n_repeats=st.integers(1, 40),
    n_candidate_repeats=st.integers(1, 30),
)
def test_shared_context_cuts_once_for_all(
    context: str, candidates: list[str], n_repeats: int, n_candidate_repeats: int
) -> None:
    context *= n_repeats
    candidates = [candidates[0] * n_candidate_repeats, *candidates[1:]]
    found = Tokenizer().encode_group(context, candidates, "shared_context")
    np.testing.assert_array_equal(found.ids, reference_shared_context(context, candidates))


def test_shared_context_shares_what_left_does_not() -> None:
    context, candidates = "one two three four " * 100, ["yes", "no, not at all, never", "why?"]
    left = Tokenizer().encode_group(context, candidates).ids
    shared = Tokenizer().encode_group(context, candidates, "shared_context").ids
    assert len({tuple(row[:200]) for row in left.tolist()}) == 3
    assert len({tuple(row[:200]) for row in shared.tolist()}) == 1
    assert (left[1] == shared[1]).all(), "the longest candidate sees the same either way"


def test_policies_agree_where_everything_fits() -> None:
    group = ("How are you?\n", ["Fine.", "", "And you?"])
    found = [Tokenizer().encode_group(*group, policy).ids for policy in ("left", "shared_context")]
    np.testing.assert_array_equal(*found)


def test_a_candidate_that_fills_a_row_alone_takes_nobodys_context() -> None:
    context, long = "word " * 300, "very long " * 200
    rows = Tokenizer().encode_group(context, ["short", long], "shared_context").ids
    np.testing.assert_array_equal(rows[0], Tokenizer().encode(context + "short"))
    np.testing.assert_array_equal(rows[1], Tokenizer().encode(long))


LONG = {
    "English": "Well, what shall we do today?\nNothing at all. ",
    "Chinese": "今天天气怎么样？我想去公园散步，但是好像要下雨了。",
    "Chinese without punctuation": "今天天气怎么样我想去公园散步但是好像要下雨了",
    "Japanese": "今日の天気はどうですか散歩に行きたいのですが",
    "Korean": "오늘날씨가어떻습니까산책하고싶어요",
    "Thai": "วันนี้อากาศเป็นอย่างไรบ้างฉันอยากไปเดินเล่น",
    "Arabic": "كيفحالالطقساليومأريدأنأتمشى",
    "Hebrew": "מהמזגהאווירהיוםאנירוצהלטייל",
    "Hindi": "आजमौसमकैसाहैमैंटहलनाचाहताहूँ",
    "Russian": "какаясегодняпогодаяхочупойтигулять",
    "Greek": "τικαιρόκάνεισήμεραθέλωναπάωβόλτα",
    "Armenian": "այսօրինչեղանակէուզումեմզբոսնել",
    "Amharic": "ዛሬየአየርሁኔታውእንዴትነው",
    "emoji": "😀😂🎉🐟",
    "English without blanks": "thequickbrownfoxjumpsoverthelazydog",
    "addresses": "https://example.com/?q=x9aB_7&page=",
    "combining marks": "e\u0301\u0302\u0303",
}


@pytest.fixture
def given_texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that are tokenised during the test."""
    given: list[str] = []
    original = Tokenizer._encode

    def encode(self: Tokenizer, texts: list[str]) -> list:
        given.extend(texts)
        return original(self, texts)

    monkeypatch.setattr(Tokenizer, "_encode", encode)
    return given


@pytest.mark.parametrize("policy", ["left", "shared_context"])
@pytest.mark.parametrize("script", LONG)
def test_a_megabyte_is_not_tokenised(given_texts: list[str], policy: str, script: str) -> None:
    text = LONG[script]
    conversation = text * (MEGABYTE // len(text.encode()))
    candidates = [f"reply number {number}" for number in range(8)]
    Tokenizer().encode_group(conversation, candidates, policy)
    Tokenizer().encode(conversation)
    sizes = [len(text.encode()) for text in given_texts]
    assert sum(sizes) < 5000
    assert len([size for size in sizes if size > 600]) == 2, "the context once per call"


@pytest.mark.parametrize("end", ["x" * 1600, "thequickbrownfox" * 100, "-" * 1600])
def test_an_end_without_blanks_costs_itself(given_texts: list[str], end: str) -> None:
    conversation = "Well, what shall we do today?\n" * (MEGABYTE // 30) + end
    Tokenizer().encode(conversation)
    assert sum(map(len, given_texts)) < 9000


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_the_end_of_every_script_has_the_tokens_of_the_whole(text: str) -> None:
    text *= 20_000 // len(text.encode())
    np.testing.assert_array_equal(Tokenizer().encode(text), whole(text)[-256:])
    rows = Tokenizer().encode_group(text, ["", "'s", "a reply", text[:50]]).ids
    joined = [whole(text + candidate) for candidate in ("", "'s", "a reply", text[:50])]
    np.testing.assert_array_equal(rows, padded(joined))


@pytest.mark.parametrize(
    ("context", "candidates", "row"),
    [(None, ["a"], None), ("a\udfff", ["a"], None), ("a", ["b", None], 1), ("a", ["b\ud800"], 0)],
)
def test_what_is_no_group_is_refused(context: str, candidates: list[str], row: int | None) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Tokenizer().encode_group(context, candidates)
    assert caught.value.row == row
