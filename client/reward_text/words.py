r"""Token ids of text whose words have been seen before, without the tokenizer.

GPT-2 splits a text into pieces (words, numbers, runs of signs or blanks) and encodes each by
itself. A few pieces make up most of what people write, so their ids are kept. The splitting is done
here, with a pattern that equals GPT-2's for the characters of `PLAIN`; other text is left to the
tokenizer.

The pattern costs more than anything else, so it is not run over text between two spaces that has
been seen before. A piece begins at every space that is followed by a character other than a blank:
a piece that continues over a space consists only of blanks, and a run of blanks before a word
leaves its last one to the word (`\s+(?!\S)`). What precedes is then split as if the text ended
there.
"""

import re
from collections.abc import Callable

import numpy as np

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
_BLANKS = " \t\n\r\f\v"  # of the pattern
_SPECIAL = "<|endoftext|>"


class Words:
    """Ids of pieces, and of words, learnt as they come. Safe across threads.

    Args:
        encode: gives the tokenizer's ids for each of several pieces.
    """

    def __init__(self, encode: Callable[[list[str]], list[list[int]]]) -> None:
        self._encode = encode
        self._pieces = _Kept(self._of_piece)
        self._after_space = _Kept(self._of_word)

    def ids(self, text: str) -> bytes | None:
        """The ids of a text, int32 each; None if the text has to be left to the tokenizer."""
        if not (text.isascii() or PLAIN.fullmatch(text)) or _SPECIAL in text:
            return None
        first, *words = text.split(" ")
        try:
            known = map(self._after_space.__getitem__, words)
            return b"".join([self._of_pieces(first), *known])
        except _BlankError:
            return self._of_pieces(text)

    def _of_word(self, word: str) -> bytes:
        """The ids of a space and the text after it, up to the next space."""
        if not word or word[0] in _BLANKS:
            raise _BlankError
        return self._of_pieces(" " + word)

    def _of_pieces(self, text: str) -> bytes:
        return b"".join(map(self._pieces.__getitem__, _PIECE.findall(text)))

    def _of_piece(self, piece: str) -> bytes:
        (ids,) = self._encode([piece])
        return np.array(ids, np.int32).tobytes()


class _BlankError(Exception):
    """A space before another blank, or at the end: a piece need not begin with it."""


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
