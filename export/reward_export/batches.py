"""Real conversations as batches of token ids, on which the exporter calibrates and compares."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from reward_contract import CONTRACT
from reward_export.conversations import Conversation, conversations
from reward_text import Tokenizer, pad_rows

GROUP = 8  # candidates per context

Ids = NDArray[np.int32]


def groups_of_candidates() -> Iterator[Ids]:
    """Real contexts, each with eight real replies, to judge rankings by. int32 [8, S]."""
    return _groups(conversations()[:24])


def calibration_groups() -> Iterator[Ids]:
    """The same from other conversations, to calibrate quantisation on. int32 [8, S]."""
    return _groups(conversations()[24:])


def _groups(dialogues: Sequence[Conversation]) -> Iterator[Ids]:
    tokenizer = Tokenizer()
    replies = [turn for dialogue in dialogues for turn in dialogue.turns[5:7]]
    for i, dialogue in enumerate(dialogues):
        context = "\n".join(dialogue.turns[: 3 + i % 5])
        others = [replies[(3 * i + j) % len(replies)] for j in range(GROUP - 1)]
        candidates = [dialogue.turns[3 + i % 5], *others]
        yield pad_rows([tokenizer.encode(f"{context}\n{candidate}") for candidate in candidates])


def other_batches(n_positions: int) -> Iterator[Ids]:
    """Batches of ids, [B, S] each: unrelated rows, many lengths, and edge rows."""
    tokenizer = Tokenizer()
    rows = [tokenizer.encode(" ".join(dialogue.turns)) for dialogue in conversations()]
    stream = np.concatenate(rows)
    for start in range(0, 24, 8):
        yield pad_rows([row[: 30 + 31 * i] for i, row in enumerate(rows[start : start + 8])])
    lengths = [n for n in (1, 2, 3, 5, 17, 64, 255, 256, 257, 511, 1023, 1024) if n <= n_positions]
    yield from (pad_rows([stream[n : 2 * n]]) for n in lengths)
    yield _edge_rows(rows[0])


def _edge_rows(row: Ids) -> Ids:
    pad = np.array([CONTRACT.pad_token_id], np.int32)
    return pad_rows(
        [
            row[:0],  # only pads
            row[:40],
            row[:40],  # a duplicate
            row[:20],  # a prefix of another
            np.concatenate([row[:20], pad, row[20:30]]),  # the pad token inside
            np.concatenate([pad, row[:10]]),  # the pad token at the start
            np.concatenate([row[:20], pad]),  # the pad token at the end, where it is padding
            row[:1],
        ]
    )
