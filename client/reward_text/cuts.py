r"""Where a text can be cut so that both parts have the tokens they have in the whole.

GPT-2 splits a text into pieces before it merges bytes, with the pattern

    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+

and no token spans two pieces. No alternative goes on from a non-blank to a blank, so a piece
ends there in every text. None looks behind itself, so what follows is split as if the text
began there; the only one that looks ahead is of blanks, so what precedes is split as if the
text ended there. The special token `<|endoftext|>`, taken out first, holds no blank.

Source: `pat` in encoder.py of GPT-2's release, and the `ByteLevel` pre-tokenizer of `tokenizers`.
"""

import re

# Before a common blank, behind what nobody's tables call blank: Python and the regular
# expressions of `tokenizers` may follow different releases of Unicode.
_CUT = re.compile(r"(?<=[^\s\u180e\u200b-\u200f\u2060-\u206f\ufeff])[ \t\n\r]")


def tail_start(text: str, n_characters: int) -> int:
    """The first cut within the last `n_characters`; 0 where there is none or the text is shorter.

    Example:
        >>> tail_start("one two three", 8)
        7
    """
    start = len(text) - n_characters
    cut = _CUT.search(text, start) if start > 0 else None
    return cut.start() if cut else 0


def last_cut(text: str) -> int:
    """The last cut of a text; 0 where there is none.

    Example:
        >>> last_cut("one two three ")
        13
    """
    window = 64
    while True:
        start = max(0, len(text) - window)
        cuts = [cut.start() for cut in _CUT.finditer(text, start)]
        if cuts or not start:
            return cuts[-1] if cuts else 0
        window *= 8
