"""Texts that a tokenizer may trip over."""

from hypothesis import strategies as st

END = "<|endoftext|>"

HOSTILE = {
    "empty": "",
    "one space": " ",
    "spaces": " " * 1000,
    "mixed white space": " \t\r\n\v\f \u00a0\u2003\u3000 " * 50,
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈👍🏿" * 40,
    "combining marks": "e\u0301\u0323" * 100 + "Z\u0351\u036b\u0343" * 50,
    "unnormalised": "\u212b\u00c5\ufb01ne",
    "NUL": "a\0b\0\0c",
    "controls": "".join(map(chr, range(32))),
    "right to left": "שלום עולם مرحبا بالعالم\u202e",
    "no space": "a" * 100_000,
    "noncharacters": "\ufffe\uffff\U0010ffff",
    "end token alone": END,
    "end token at the start": f"{END}Hello",
    "end token inside": f"Hello {END} there",
    "end tokens at the end": f"Hello{END}{END}",
    "end token with spaces": f"  {END}  x {END} ",
    "half an end token": "<|endoftext|<|endoftext",
    "end token spelled in parts": "<|endof" + "text|>",
    "many end tokens": END * 300,
    "other special tokens": "<s></s><pad>[CLS]<|im_start|>",
    "contractions": "I'll you've don't 'S 'LL x'd",
}

PIECES = st.one_of(st.text(), st.sampled_from([END, " ", "\n", "  ", "'s", "the", "é", "\u3000"]))
"""Pieces to join, with more white space, end tokens and contractions than chance would give."""
