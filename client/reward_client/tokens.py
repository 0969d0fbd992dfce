"""Text to GPT-2 token ids, exactly as the model card's tokenizer settings give them.

The card: tokenizer `gpt2`, padding on the right with 50256, truncation on the left, at
most 256 tokens.

Mind user text that holds `<|endoftext|>`: it is parsed as the one special token 50256, as
`transformers` parses it, and that is the pad token as well. Inside a text it is a token
like any other; at the end it cannot be told from padding, and is not scored.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib import resources

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import models, pre_tokenizers

from reward_client.contract import CONTRACT
from reward_client.errors import ContractError, InvalidInputError

Ids = NDArray[np.int32]

_SURROGATES = (
    "holds a lone surrogate, which is no Unicode text; replace it, for example with "
    "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
)


class Tokenizer:
    """GPT-2's byte-level BPE with the card's truncation and padding. Safe across threads.

    Example:
        >>> Tokenizer().encode("Hello world").tolist()
        [15496, 995]
        >>> Tokenizer().encode_rows(["Hi", ""])[:, :3].tolist()
        [[17250, 50256, 50256], [50256, 50256, 50256]]
    """

    def __init__(self) -> None:
        self._bpe = _bpe()

    def encode(self, text: str) -> Ids:
        """The last `CONTRACT.max_tokens` tokens of a text, unpadded.

        Returns:
            int32 [n], n from 0 (the empty text) to 256.

        Raises:
            InvalidInputError: `text` is no string, or no Unicode text.
        """
        (row,) = self._encode([text])
        return np.array(row, np.int32)

    def encode_rows(self, texts: Sequence[str]) -> Ids:
        """One row a text, padded on the right to the same length for every call.

        All requests have one shape then, and Triton can put any two into one batch; the
        graph does not compute padding.

        Args:
            texts: any number of texts. The empty one gives pads alone, whose reward is
                that of the pad token at position 0, as in the card's snippet.

        Returns:
            int32 [B, 256], in the order of `texts`.

        Raises:
            InvalidInputError: not a sequence of strings, or a row is no Unicode text.
        """
        check_texts(texts)
        ids = np.full((len(texts), CONTRACT.max_tokens), CONTRACT.pad_token_id, np.int32)
        for padded, row in zip(ids, self._encode(texts), strict=True):
            padded[: len(row)] = row
        return ids

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        try:
            encodings = self._bpe.encode_batch_fast(list(texts), add_special_tokens=False)
        except (TypeError, UnicodeEncodeError):  # which of the two: find the row that is to blame
            check_texts(texts)
            row = next(row for row, text in enumerate(texts) if not _is_unicode(text))
            raise InvalidInputError(f"row {row} {_SURROGATES}", row=row) from None
        return [encoding.ids for encoding in encodings]


def check_texts(texts: Sequence[str]) -> None:
    """Refuse what is not a sequence of strings.

    Raises:
        InvalidInputError: `texts` is one string, no sequence, or holds something else.
    """
    if isinstance(texts, str | bytes) or not isinstance(texts, Sequence):
        raise InvalidInputError(
            f"expected a list of texts, got {type(texts).__name__}; put a single text in a list"
        )
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInputError(
                f"row {row} is {type(text).__name__}, not str; decode or convert it first", row=row
            )


def joined(context: str, candidates: Sequence[str]) -> list[str]:
    """The texts of a group: the context with each candidate behind it, nothing between.

    Raises:
        InvalidInputError: the context is no string or no Unicode text (`row` is None), or
            the candidates are no sequence of strings (`row` counts them).
    """
    if not isinstance(context, str):
        raise InvalidInputError(
            f"the context is {type(context).__name__}, not str; decode or convert it first"
        )
    if not _is_unicode(context):
        raise InvalidInputError(f"the context {_SURROGATES}")
    check_texts(candidates)
    return [context + candidate for candidate in candidates]


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


@cache
def _bpe() -> tokenizers.Tokenizer:
    """The shipped vocabulary, checked once a process; about 0.2 s."""
    data = resources.files("reward_client") / "data"
    vocab, merges = (data / name for name in ("encoder.json", "vocab.bpe"))
    vocab_bytes, merges_bytes = vocab.read_bytes(), merges.read_bytes()
    found = hashlib.sha256(vocab_bytes + merges_bytes).hexdigest()
    if found != CONTRACT.tokenizer_sha256:
        raise ContractError(
            f"the installed GPT-2 vocabulary is damaged: its SHA-256 is {found}, not "
            f"{CONTRACT.tokenizer_sha256}; reinstall gpt2-reward"
        )
    _version, *lines = merges_bytes.decode("utf-8").strip().split("\n")
    pairs = [(left, right) for left, right in (line.split(" ") for line in lines)]
    bpe = tokenizers.Tokenizer(models.BPE(vocab=json.loads(vocab_bytes), merges=pairs))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    # as transformers does: one special token, matched before anything else is split
    bpe.add_special_tokens(["<|endoftext|>"])
    bpe.enable_truncation(CONTRACT.max_tokens, direction="left")
    return bpe
