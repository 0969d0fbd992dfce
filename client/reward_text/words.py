"""Token ids of text whose words have been seen before, without the tokenizer.

GPT-2 splits a text into pieces (words, numbers, runs of signs or blanks) and encodes each alone.
Few pieces make up most of what people write, so their ids are kept. The splitting is done here with
a pattern that is GPT-2's for the characters of `PLAIN`; other text is left to the tokenizer.
"""

import re
from collections.abc import Callable, Sequence
from itertools import chain

MAX_PIECES = 100_000  # kept: some 20 MB
MAX_PIECE = 24  # characters of one that is kept

_LETTERS = "A-Za-zÀ-ÖØ-öø-ÿ"  # Unicode's category L, as far as PLAIN goes
_SIGNS = r"\u2010-\u2027"  # dashes, quotes, dots: category P

PLAIN = re.compile(f"[\\x00-\\x7f{_LETTERS}{_SIGNS}]*")
"""Text that can be split here: what is in it has the same class in every version of Unicode."""

# words first, which are most pieces: what begins as one cannot begin as a contraction. GPT-2's own:
# '(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
_PIECE = re.compile(
    f" ?[{_LETTERS}]+|'(?:[sdmt]|ll|ve|re)| ?[0-9]+| ?[^\\s{_LETTERS}0-9]+|\\s+(?!\\S)|\\s+",
    re.ASCII,  # blanks beyond ASCII are not in PLAIN
)
_SPECIAL = "<|endoftext|>"


class Words:
    """Ids of pieces, learnt as they come. Safe across threads.

    Args:
        encode: the ids of each of some pieces, by the tokenizer.
    """

    def __init__(self, encode: Callable[[list[str]], list[list[int]]]) -> None:
        self._encode = encode
        self._ids: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int] | None:
        """The ids of a text; None if it has to be left to the tokenizer."""
        if not (text.isascii() or PLAIN.fullmatch(text)) or _SPECIAL in text:
            return None
        pieces = _PIECE.findall(text)
        known = self._ids
        try:
            return list(chain.from_iterable(map(known.__getitem__, pieces)))
        except KeyError:
            found = self._learn(pieces, known)
            return list(chain.from_iterable([found.get(one) or known[one] for one in pieces]))

    def _learn(self, pieces: Sequence[str], known: dict[str, list[int]]) -> dict[str, list[int]]:
        """The ids of those that are not known, of which the short ones are kept."""
        new = [piece for piece in dict.fromkeys(pieces) if piece not in known]
        found = dict(zip(new, self._encode(new), strict=True))
        if len(known) > MAX_PIECES:
            self._ids = {}  # another thread may be reading the old one
        self._ids.update((one, ids) for one, ids in found.items() if len(one) <= MAX_PIECE)
        return found
