"""Text to GPT-2 token ids, exactly as the model card's tokenizer settings give them.

The card: tokenizer `gpt2`, padding on the right with 50256, truncation on the left, at
most 256 tokens. Other models have other windows.

Beware of user text that holds `<|endoftext|>`: it is parsed as the one special token 50256, as
`transformers` parses it, and that is also the pad token. Inside a text it is a token like any
other; at the end it cannot be told from padding, and is not scored.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import models, pre_tokenizers

from reward_contract import CONTRACT
from reward_contract.errors import ContractError, InvalidInputError
from reward_text.cuts import Cuts
from reward_text.words import Words

Ids: TypeAlias = NDArray[np.int32]

Truncation: TypeAlias = Literal["left", "shared_context"]
"""What a text that is too long loses: docs/truncation.md."""

TAIL_BYTES = 6 * CONTRACT.max_tokens  # for this window; English has 4 to 5 per token

ID_BYTES = 4
_PAD = np.int32(CONTRACT.pad_token_id).tobytes()

_SURROGATES = (
    "holds a lone surrogate, which is not Unicode text; replace it, for example with "
    "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
)


class Row(NamedTuple):
    """Token ids, int32 each, and whether the text has more before them."""

    ids: bytes
    is_cut: bool

    @property
    def n_tokens(self) -> int:
        """How many ids there are."""
        return len(self.ids) // ID_BYTES


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """Texts as the model takes them.

    Attributes:
        ids: int32 [B, S], padded on the right to the window.
        lengths: int [B], real tokens of each row.
        is_cut: bool [B], whether a row's text lost its beginning.
    """

    ids: Ids
    lengths: NDArray[np.int64]
    is_cut: NDArray[np.bool_]

    @property
    def n_tokens(self) -> int:
        """Real tokens of all rows together."""
        return int(self.lengths.sum())

    @property
    def n_truncated(self) -> int:
        """Number of rows whose text lost its beginning."""
        return int(self.is_cut.sum())

    @classmethod
    def concatenated(cls, parts: "Sequence[Encoded]") -> "Encoded":
        """The rows of several batches with one window, in order."""
        if not parts:
            return _encoded([], CONTRACT.max_tokens)
        return cls(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.lengths for part in parts]),
            np.concatenate([part.is_cut for part in parts]),
        )


class Tokenizer:
    """GPT-2's byte-level BPE with the card's truncation and padding. Safe across threads.

    Args:
        max_tokens: the window S: of a text, the last S tokens count, and rows are padded to it.

    Attributes:
        max_tokens: as given.

    Example:
        >>> Tokenizer().encode("Hello world").tolist()
        [15496, 995]
        >>> Tokenizer().encode_rows(["Hi", ""])[:, :3].tolist()
        [[17250, 50256, 50256], [50256, 50256, 50256]]
    """

    def __init__(self, max_tokens: int = CONTRACT.max_tokens) -> None:
        self.max_tokens = max_tokens
        self._bpe, self._cuts, self._words = _bpe()

    def encode(self, text: str) -> Ids:
        """The last `max_tokens` tokens of a text, unpadded.

        Returns:
            int32 [n], n from 0 (the empty text) to S.

        Raises:
            InvalidInputError: `text` is not a string, or not Unicode text; its `row` is 0.
        """
        check_texts([text])
        (row,) = self._last_tokens([text])
        return np.frombuffer(row.ids, np.int32).copy()

    def encode_rows(self, texts: Sequence[str]) -> Ids:
        """One row per text, padded on the right to the same length in every call.

        All requests then have one shape, and Triton can put any two into one batch; the
        graph does not compute padding.

        Args:
            texts: any number of texts. The empty one gives only pads, whose reward is that of
                the pad token at position 0. The card's snippet masks that token out, and then
                has no single answer: docs/contract.md.

        Returns:
            int32 [B, S], in the order of `texts`.

        Raises:
            InvalidInputError: not a sequence of strings, or a row is not Unicode text.
        """
        check_texts(texts)
        return self.encode_texts(texts).ids

    def encode_texts(self, texts: Sequence[str]) -> Encoded:
        """Like `encode_rows`, with the length of each row and whether it was cut.

        A text costs what the model can see of it: only the end of a long one is tokenised.

        Raises:
            InvalidInputError: as for `encode_rows`.
        """
        check_texts(texts)
        return _encoded(self._last_tokens(texts), self.max_tokens)

    def encode_group(
        self, context: str, candidates: Sequence[str], truncation: Truncation = "left"
    ) -> Encoded:
        """The rows of `context + candidate`, nothing between; the context is tokenised once.

        Args:
            context: the conversation; may be empty.
            candidates: any number of replies; may be empty strings.
            truncation: `left` gives exactly the tokens of `encode_rows` of the joined texts.
                `shared_context` cuts the context at one place for all candidates, so that the
                longest fits and all are judged by the same context; see docs/truncation.md.

        Raises:
            InvalidInputError: the context is not a string or not Unicode text (`row` is None),
                or the candidates are not a sequence of such texts (`row` says which one).
        """
        if not isinstance(context, str):
            raise InvalidInputError(
                f"the context is {type(context).__name__}, not str; decode or convert it first"
            )
        if not is_unicode(context):
            raise InvalidInputError(f"the context {_SURROGATES}")
        check_texts(candidates)
        cut = self._cuts.last(context)
        # what precedes the cut has the same tokens for every candidate; the rest has its own
        own = self._last_tokens([context[cut:] + candidate for candidate in candidates])
        (shared,) = self._last_tokens([context[:cut]])
        if truncation == "shared_context":
            shared = _ending(shared, self._room_for_context(row.n_tokens for row in own))
        return _encoded([self._joined(shared, row) for row in own], self.max_tokens)

    def n_tokens(self, text: str) -> int:
        """Number of tokens of a whole text, including those that the model does not read.

        Unlike other calls, it tokenises the whole text. A candidate lost
        `n_tokens(context + candidate) - RankedCandidate.n_tokens` tokens.

        Raises:
            InvalidInputError: as for `encode`.
        """
        check_texts([text])
        return len(self._encode([text])[0]) // ID_BYTES

    def n_bytes(self, ids: Ids) -> int:
        """Number of UTF-8 bytes in tokens; a character may begin in one and end in another."""
        # the vocabulary is written with one printable character for each byte
        return sum(len(self._bpe.id_to_token(int(token)) or "") for token in ids)

    def _last_tokens(self, texts: Sequence[str]) -> list[Row]:
        n_bytes = self._tail_bytes()
        starts = [self._cuts.tail_start(text, n_bytes) for text in texts]
        tails = [text[start:] for text, start in zip(texts, starts, strict=True)]
        return [
            self._row(text, start, ids)
            for text, start, ids in zip(texts, starts, self._encode(tails), strict=True)
        ]

    def _row(self, text: str, start: int, ids: bytes) -> Row:
        """The end of a text whose tokens from `start` on are known; tokenises more if too few."""
        n_bytes = self._tail_bytes() if start else 0
        while start and len(ids) < ID_BYTES * self.max_tokens:
            n_bytes *= 4
            start = self._cuts.tail_start(text, n_bytes)
            ids = self._encode([text[start:]])[0]
        return _ending(Row(ids, is_cut=start > 0), self.max_tokens)

    def _tail_bytes(self) -> int:
        return max(TAIL_BYTES * self.max_tokens // CONTRACT.max_tokens, 1)

    def _room_for_context(self, own_lengths: Iterable[int]) -> int:
        """Tokens of context that every candidate of a group can have, given the longest one.

        A candidate that fills a row by itself has no context anyway, and takes none from others.
        """
        longest = max((n for n in own_lengths if n < self.max_tokens), default=0)
        return self.max_tokens - longest

    def _joined(self, shared: Row, own: Row) -> Row:
        is_cut = own.is_cut or shared.is_cut
        return _ending(Row(shared.ids + own.ids, is_cut=is_cut), self.max_tokens)

    def _encode(self, texts: list[str]) -> list[bytes]:
        known = [self._words.ids(text) for text in texts]
        rest = [text for text, ids in zip(texts, known, strict=True) if ids is None]
        encoded = iter(_encoded_by(self._bpe, rest))
        return [
            np.array(next(encoded), np.int32).tobytes() if ids is None else ids for ids in known
        ]


def _encoded_by(bpe: tokenizers.Tokenizer, texts: list[str]) -> list[list[int]]:
    if not texts:
        return []
    return [one.ids for one in bpe.encode_batch_fast(texts, add_special_tokens=False)]


def _ids_of_one(bpe: tokenizers.Tokenizer, text: str) -> list[int]:
    ids: list[int] = bpe.encode(text, add_special_tokens=False).ids  # a batch starts threads
    return ids


def pad_rows(rows: Sequence[Sequence[int] | Ids], *, length: int | None = None) -> Ids:
    """Rows as one array, filled on the right with the pad token. -> int32 [B, S].

    Args:
        rows: token ids; at least one row if `length` is None.
        length: S, which no row may exceed; the length of the longest row if None.
    """
    length = max(map(len, rows)) if length is None else length
    ids = np.full((len(rows), length), CONTRACT.pad_token_id, np.int32)
    for padded, row in zip(ids, rows, strict=True):
        padded[: len(row)] = row
    return ids


def _encoded(rows: Sequence[Row], max_tokens: int) -> Encoded:
    n_bytes = ID_BYTES * max_tokens
    padding = _PAD * max_tokens
    data = bytearray().join([row.ids + padding[: n_bytes - len(row.ids)] for row in rows])
    return Encoded(
        np.frombuffer(data, np.int32).reshape(len(rows), max_tokens),
        np.array([row.n_tokens for row in rows], np.int64),
        np.array([row.is_cut for row in rows], np.bool_),
    )


def _ending(row: Row, n_tokens: int) -> Row:
    """The last `n_tokens`, at least one, of a row."""
    n_bytes = ID_BYTES * n_tokens
    if len(row.ids) <= n_bytes:
        return row
    return Row(row.ids[-n_bytes:], is_cut=True)


def check_texts(texts: Sequence[str]) -> None:
    """Refuse what is not a sequence of strings.

    Raises:
        InvalidInputError: `texts` is a single string or not a sequence, or an item is not
            Unicode text.
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
        if not is_unicode(text):
            raise InvalidInputError(f"row {row} {_SURROGATES}", row=row)


def is_unicode(text: str) -> bool:
    """Whether a text can be encoded, which a lone surrogate cannot."""
    if text.isascii():  # known without looking
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


@cache
def _bpe() -> tuple[tokenizers.Tokenizer, Cuts, Words]:
    """The shipped vocabulary, checked once per process, with its cuts and words; takes 0.2 s."""
    data = resources.files("reward_text") / "data"
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
    ids_by_token = json.loads(vocab_bytes)
    bpe = tokenizers.Tokenizer(models.BPE(vocab=ids_by_token, merges=pairs))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    # as transformers does: one special token, matched before anything else is split
    bpe.add_special_tokens(["<|endoftext|>"])
    return bpe, Cuts(ids_by_token), Words(partial(_ids_of_one, bpe))
