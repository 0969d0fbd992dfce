r"""Where a text can be cut so that both parts have the tokens they have in the whole.

GPT-2 splits a text into pieces before it merges bytes, with the pattern

    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+

and then joins neighbouring bytes of a piece into tokens of its vocabulary. A cut is a place where

1. no token of the vocabulary has the last byte before it and the first byte after it side by
   side: then no token spans it, whatever surrounds it, and each side is merged by itself;
2. the character before it is not blank: no alternative continues from a non-blank to a blank, and
   the one that looks ahead matches only blanks, so what precedes is split as if the text ended
   there (a contraction cannot be torn: its letters are side by side in a token);
3. the character after it is not an apostrophe, with which a contraction could begin that does not
   begin there in the whole; any other beginning is split as the rest of its piece was, because no
   alternative looks behind.

In English, such places are blanks, punctuation and changes of script; in scripts whose bytes the
vocabulary seldom joins, such as Chinese, every other character is one. The special token
`<|endoftext|>`, taken out first, is in the vocabulary, so 1. covers it.

Source: `pat` and `bpe` in encoder.py of GPT-2's release, and the `ByteLevel` pre-tokenizer of
`tokenizers`.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

# Python and the regular expressions of `tokenizers` may follow different releases of Unicode, so
# this set has whatever any of them calls blank, including control and invisible characters.
BLANKS = frozenset(
    chr(code)
    for first, last in [
        (0x00, 0x20),
        (0x7F, 0xA0),
        (0x1680, 0x1680),
        (0x180E, 0x180E),
        (0x2000, 0x200F),
        (0x2028, 0x202F),
        (0x205F, 0x206F),
        (0x3000, 0x3000),
        (0xFEFF, 0xFEFF),
    ]
    for code in range(first, last + 1)
)
_FIRST_WINDOW = 64  # characters, looking backwards
_GROWTH = 8
_MOST_BYTES = 4  # of a character


class Cuts:
    """Cuts for a vocabulary.

    Args:
        tokens: the vocabulary, written as GPT-2 does: one printable character for each byte.

    Example:
        >>> cuts = Cuts(["ab", "Ġab"])  # Ġ is the space
        >>> cuts.last("ab ab")
        2
        >>> cuts.last("abba")
        3
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        self._splits = ~_side_by_side(tokens)
        self._splits[:, 0x80:0xC0] = False  # within a character
        self._splits[:, ord("'")] = False

    def tail_start(self, text: str, n_bytes: int) -> int:
        """A cut about `n_bytes` of UTF-8 before a text's end; 0 if the text is shorter.

        It is the first cut after that point, or the last one before it if there is none.
        """
        if len(text) * (1 if text.isascii() else _MOST_BYTES) <= n_bytes:
            return 0  # most texts; no copy is made
        start = max(0, len(text) - n_bytes)
        data = text[start:].encode()
        if not start and len(data) <= n_bytes:
            return 0
        start = len(text) - len(data[-n_bytes:].decode(errors="ignore"))
        found = self._within(text, start, len(text))
        first = next((cut for cut in found if text[cut - 1] not in BLANKS), 0)
        return first or self.last(text, start + 1)

    def last(self, text: str, end: int | None = None) -> int:
        """The last cut of a text before `end`; 0 if there is none."""
        end = len(text) if end is None else end
        window = _FIRST_WINDOW
        while end > 1:
            start = max(0, end - window)
            found = reversed(self._within(text, start, end))
            cut = next((cut for cut in found if text[cut - 1] not in BLANKS), 0)
            if cut:
                return cut
            end = start + 1  # the character at `start` had no neighbour to its left
            window *= _GROWTH
        return 0

    def _within(self, text: str, start: int, end: int) -> list[int]:
        """Places between `start` and `end` that no token spans."""
        data = np.frombuffer(text[start:end].encode(), np.uint8)
        places = np.flatnonzero(self._splits[data[:-1], data[1:]]) + 1
        if len(data) == end - start:  # ASCII
            return [start + int(place) for place in places]
        n_characters = np.cumsum((data & 0xC0) != 0x80)  # noqa: PLR2004  # continuation bytes
        return [start + int(n_characters[place]) - 1 for place in places]


def _side_by_side(tokens: Iterable[str]) -> NDArray[np.bool_]:
    """Which two bytes are side by side in some token. -> bool [256, 256]."""
    end = 256
    codes = np.full(0x200, end)
    for byte, character in enumerate(_byte_characters()):
        codes[ord(character)] = byte
    text = np.frombuffer("\uffff".join(tokens).encode("utf-16-le"), np.uint16)
    found = codes[np.minimum(text, len(codes) - 1)]
    table = np.zeros((end + 1, end + 1), np.bool_)
    table[found[:-1], found[1:]] = True
    return table[:end, :end]


def _byte_characters() -> list[str]:
    """The character that GPT-2 writes for each byte: itself if printable, else one from 256 on.

    Source: `bytes_to_unicode` in encoder.py of GPT-2's release.
    """
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in seen else next(others)) for byte in range(0x100)]
