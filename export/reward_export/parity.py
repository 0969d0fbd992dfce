"""Does the graph on ONNX Runtime give the rewards of the checkpoint in PyTorch?

Asked before anything is published, on real conversations of many lengths and on the rows
where padding, pooling and the prefix tree could go wrong.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tqdm import tqdm

from reward_client.contract import CONTRACT, INPUT_IDS, REWARD
from reward_client.tokens import Tokenizer
from reward_export.errors import ExportError, ParityError
from reward_export.sample import conversations

TOLERANCE = 1e-4  # largest absolute difference of a float32 reward; about 1e-6 is usual

Ids = NDArray[np.int32]


class Reference(Protocol):
    """What the graph is compared with."""

    def rewards(self, ids: Ids) -> NDArray[np.float32]:
        """[B, S] int32 ids to [B, 1] float32 rewards."""


@dataclass(frozen=True, slots=True)
class Parity:
    """What the comparison measured.

    Attributes:
        n_rows: rows compared.
        n_batches: batches they came in.
        longest_row: tokens of the longest.
        max_difference: largest absolute difference of a reward.
        mean_difference: mean absolute difference.
        max_batch_effect: largest change of a row's reward with its batch mates.
        reward_std: standard deviation of the reference's rewards, to judge the others by.
        tolerance: what `max_difference` was held to.
    """

    n_rows: int
    n_batches: int
    longest_row: int
    max_difference: float
    mean_difference: float
    max_batch_effect: float
    reward_std: float
    tolerance: float

    def as_dict(self) -> dict[str, float]:
        """For the manifest."""
        return asdict(self)


def open_session(graph: Path) -> onnxruntime.InferenceSession:
    """The graph on ONNX Runtime's CPU provider, its inputs and outputs held to the contract.

    Raises:
        ExportError: they are not those of the contract.
    """
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    found = [
        (tensor.name, tensor.type, len(tensor.shape), tensor.shape[-1])
        for tensor in (*session.get_inputs(), *session.get_outputs())
    ]
    wanted = [
        (INPUT_IDS.name, "tensor(int32)", 2, "sequence"),
        (REWARD.name, "tensor(float)", 2, REWARD.dims[-1]),
    ]
    if found != wanted:
        raise ExportError(f"the graph's tensors are {found}; the contract says {wanted}")
    return session


def check(session: onnxruntime.InferenceSession, reference: Reference, n_positions: int) -> Parity:
    """Compare the graph with the reference.

    Args:
        session: the graph.
        reference: gives the rewards that are right.
        n_positions: length of the longest row that can be scored.

    Raises:
        ParityError: a reward differs by more than `TOLERANCE`, or is not finite.
        ExportError: a row that cannot be scored did not answer NaN, or touched its mates.
    """
    batches = list(_batches(n_positions))
    wanted, found, alone = [], [], []
    for ids in tqdm(batches, desc="comparing with PyTorch", unit="batch"):
        wanted.append(reference.rewards(ids))
        found.append(_run(session, ids))
        alone.append(_run(session, ids[-1:]) - found[-1][-1:])
    _check_isolation(session, batches[0])
    parity = _measure(batches, np.concatenate(wanted), np.concatenate(found), alone)
    if not parity.max_difference <= TOLERANCE:  # not "greater": NaN must fail as well
        raise ParityError(
            f"the graph's rewards differ from PyTorch's by up to {parity.max_difference:.3g}, "
            f"more than the tolerance of {TOLERANCE:g}; nothing was published",
            difference=parity.max_difference,
            tolerance=TOLERANCE,
        )
    return parity


def _measure(
    batches: Sequence[Ids],
    wanted: NDArray[np.float32],
    found: NDArray[np.float32],
    alone: Sequence[NDArray[np.float32]],
) -> Parity:
    difference = np.abs(found - wanted)
    longest = max(int(np.max(np.nonzero(ids != CONTRACT.pad_token_id)[1])) + 1 for ids in batches)
    return Parity(
        n_rows=len(wanted),
        n_batches=len(batches),
        longest_row=longest,
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        max_batch_effect=float(np.max(np.abs(np.concatenate(alone)))),
        reward_std=float(wanted.std()),
        tolerance=TOLERANCE,
    )


def _check_isolation(session: onnxruntime.InferenceSession, ids: Ids) -> None:
    """A row that cannot be scored answers NaN for itself alone."""
    poisoned = ids.copy()
    poisoned[0, 0], poisoned[-1, 0] = -1, CONTRACT.vocab_size
    clean, dirty = _run(session, ids), _run(session, poisoned)
    moved = float(np.max(np.abs(dirty[1:-1] - clean[1:-1])))
    if not (np.isnan(dirty[[0, -1]]).all() and moved <= TOLERANCE):
        raise ExportError(
            f"rows with ids outside the vocabulary answered {dirty[[0, -1], 0]} instead of NaN, "
            f"or moved their batch mates (by {moved:.3g})"
        )


def _run(session: onnxruntime.InferenceSession, ids: Ids) -> NDArray[np.float32]:
    rewards: NDArray[np.float32] = session.run([REWARD.name], {INPUT_IDS.name: ids})[0]
    return rewards


def _batches(n_positions: int) -> Iterator[Ids]:
    """Batches of ids, [B, S] each: best-of-N groups, many lengths, and edge rows."""
    tokenizer = Tokenizer()
    dialogues = [" ".join(conversation.turns) for conversation in conversations()]
    rows = [tokenizer.encode(text) for text in dialogues]
    stream = np.concatenate(rows)
    for start in range(0, 24, 8):
        yield _pad([np.append(rows[start][:160], rows[start + i][:48]) for i in range(1, 8)])
        yield _pad([row[: 30 + 31 * i] for i, row in enumerate(rows[start : start + 8])])
    lengths = [n for n in (1, 2, 3, 5, 17, 64, 255, 256, 257, 511, 1023, 1024) if n <= n_positions]
    yield from (_pad([stream[n : 2 * n]]) for n in lengths)
    yield _edge_rows(rows[0])


def _edge_rows(row: Ids) -> Ids:
    pad = np.array([CONTRACT.pad_token_id], np.int32)
    return _pad(
        [
            row[:0],  # pads alone
            row[:40],
            row[:40],  # a duplicate
            row[:20],  # a prefix of another
            np.concatenate([row[:20], pad, row[20:30]]),  # the pad token inside
            np.concatenate([pad, row[:10]]),  # and at the start
            np.concatenate([row[:20], pad]),  # and at the end, where it is padding
            row[:1],
        ]
    )


def _pad(rows: Sequence[Ids]) -> Ids:
    ids = np.full((len(rows), max(map(len, rows))), CONTRACT.pad_token_id, np.int32)
    for padded, row in zip(ids, rows, strict=True):
        padded[: len(row)] = row
    return ids
