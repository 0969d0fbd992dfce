r"""Token ids of text whose words have been seen before, without the tokenizer.

GPT-2 splits a text into pieces (words, numbers, runs of signs or blanks) and encodes each by
itself. A few pieces make up most of what people write, so their ids are kept. The splitting is done
here, with a pattern that equals GPT-2's for the characters of `PLAIN`; other text is left to the
tokenizer.

The pattern costs more than anything else, so it is not run over words that have been seen before,
whatever their characters. A word is what lies between blanks, with the blanks before it. No piece
continues from a character to a blank, so a piece begins with every word; and how the blanks of a
word are split depends only on what follows them.
"""

import re
from collections.abc import Callable

import numpy as np

from reward_text.cuts import BLANKS

MAX_KEPT = 100_000  # pieces, and as many words: some 20 MB each
MAX_LENGTH = 24  # characters of a piece or word that is kept

_LETTERS = "A-Za-zÀ-ÖØ-öø-ÿ"  # Unicode's category L, as far as PLAIN goes
_SIGNS = r"\u2010-\u2027"  # dashes, quotes, dots: category P

PLAIN = re.compile(f"[\\x00-\\x7f{_LETTERS}{_SIGNS}]*")
"""Text that can be split here: its characters have the same class in every version of Unicode."""

# words first, as most pieces are words, and what begins as one is not a contraction. GPT-2's own:
# '(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
_PIECE = re.compile(
    f" ?[{_LETTERS}]+|'(?:[sdmt]|ll|ve|re)| ?[0-9]+| ?[^\\s{_LETTERS}0-9]+|\\s+(?!\\S)|\\s+",
    re.ASCII,  # blanks beyond ASCII are not in PLAIN
)
_WORD = re.compile(r"\s*\S+|\s+", re.ASCII)
_SPECIAL = "<|endoftext|>"


class Words:
    """Ids of pieces, and of words, learnt as they come. Safe across threads.

    Args:
        encode: gives the tokenizer's ids for a piece, or for a word.
    """

    def __init__(self, encode: Callable[[str], list[int]]) -> None:
        self._encode = encode
        self._pieces = _Kept(self._of_text)
        self._words = _Kept(self._of_word)

    def ids(self, text: str) -> bytes | None:
        """The ids of a text, int32 each; None if the text has to be left to the tokenizer."""
        try:
            return b"".join(map(self._words.__getitem__, _WORD.findall(text)))
        except _UnsureError:
            return None

    def _of_word(self, word: str) -> bytes:
        if (word.isascii() or PLAIN.fullmatch(word)) and _SPECIAL not in word:
            return self._of_pieces(word)
        # another blank may belong to the next word; and much text is left to the tokenizer at once
        if word[-1] in BLANKS or len(word) > MAX_LENGTH:
            raise _UnsureError
        return self._of_text(word)

    def _of_pieces(self, text: str) -> bytes:
        return b"".join(map(self._pieces.__getitem__, _PIECE.findall(text)))

    def _of_text(self, text: str) -> bytes:
        return np.array(self._encode(text), np.int32).tobytes()


class _UnsureError(Exception):
    """A word that cannot or should not be encoded by itself."""


class _Kept(dict[str, bytes]):
    """A dictionary that makes what it does not have, and keeps it if it is short."""

    def __init__(self, make: Callable[[str], bytes]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, text: str) -> bytes:
        ids = self._make(text)
        if len(text) <= MAX_LENGTH:
            if len(self) >= MAX_KEPT:
                self.clear()  # a thread that is reading makes what it needs again
            self[text] = ids
        return ids
