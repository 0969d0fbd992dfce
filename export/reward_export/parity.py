"""Does the graph on ONNX Runtime give the rewards of the checkpoint in PyTorch?

Asked before anything is published, on real conversations of many lengths and on the rows
where padding, pooling and the prefix tree could go wrong. float32 is held to a difference;
the smaller precisions to what they are for, ranking candidates as float32 does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tqdm import tqdm

from reward_contract import CONTRACT, INPUT_IDS, REWARD
from reward_contract.cpu import EXACT_INT8, int8_saturates
from reward_export.conversations import Conversation, conversations
from reward_export.errors import ExportError, ParityError
from reward_export.ranks import spearman
from reward_text import Tokenizer, pad_rows

BATCH_EFFECT = 1e-5  # how far a reward may move with its batch mates, in any precision
CUDA = "CUDAExecutionProvider"
ALL_ROWS_EVERY = 6  # batches of which every row is scored alone; of the others, the last one
GROUP = 8  # candidates of a context, where rankings are compared


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What a precision is held to.

    Attributes:
        max_difference: largest absolute difference of a reward.
        in_reward_stds: whether that is in standard deviations of the checkpoint's rewards,
            rather than absolute.
        spearman: least rank correlation of all rewards with float32's.
        best_agreement: least share of groups whose best candidate is float32's.
    """

    max_difference: float
    in_reward_stds: bool = False
    spearman: float = 0.0
    best_agreement: float = 0.0


TOLERANCES = {
    "fp32": Tolerance(1e-4, spearman=0.999, best_agreement=0.95),  # about 1e-6 is usual
    "fp16": Tolerance(0.05, in_reward_stds=True, spearman=0.999, best_agreement=0.95),
    "int8": Tolerance(0.3, in_reward_stds=True, spearman=0.99, best_agreement=0.85),
}

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
        spearman: rank correlation of the rewards with the reference's.
        best_agreement: share of groups of eight candidates with the reference's best one.
        tolerance: what `max_difference` was held to.
    """

    n_rows: int
    n_batches: int
    longest_row: int
    max_difference: float
    mean_difference: float
    max_batch_effect: float
    reward_std: float
    spearman: float
    best_agreement: float
    tolerance: float

    def as_dict(self) -> dict[str, float]:
        """For the manifest."""
        return asdict(self)


def open_session(graph: Path, precision: str = "fp32") -> onnxruntime.InferenceSession:
    """The graph on ONNX Runtime, its inputs and outputs held to the contract.

    float16 runs on the CUDA provider where there is one: the CPU computes it in float32, and
    so cannot show what float16 does. All else runs on the CPU.

    Raises:
        ExportError: they are not those of the contract.
    """
    options = onnxruntime.SessionOptions()
    if int8_saturates():
        options.add_session_config_entry(*EXACT_INT8)
    providers = ["CPUExecutionProvider"]
    if precision == "fp16" and CUDA in onnxruntime.get_available_providers():
        providers.insert(0, CUDA)
    session = onnxruntime.InferenceSession(str(graph), options, providers=providers)
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


def check(
    session: onnxruntime.InferenceSession,
    reference: Reference,
    n_positions: int,
    precision: str = "fp32",
) -> Parity:
    """Compare the graph with the reference.

    Args:
        session: the graph.
        reference: gives the rewards that are right.
        n_positions: length of the longest row that can be scored.
        precision: a key of `TOLERANCES`.

    Raises:
        ParityError: the rewards differ by more than the precision's tolerance.
        ExportError: a row that cannot be scored did not answer NaN, or touched its mates.
    """
    groups, others = list(groups_of_candidates()), list(_batches(n_positions))
    wanted, found, alone = [], [], []
    for ids in tqdm([*groups, *others], desc="comparing with PyTorch", unit="batch"):
        wanted.append(reference.rewards(ids)[:, 0])
        found.append(_run(session, ids)[:, 0])
        if len(ids) > 1:
            alone.append(
                _batch_effect(session, ids, found[-1], every=len(found) % ALL_ROWS_EVERY == 1)
            )
    _check_isolation(session, groups[0], n_positions)
    all_wanted, all_found = np.concatenate(wanted), np.concatenate(found)
    best = [w.argmax() == f.argmax() for w, f in zip(wanted, found, strict=True)][: len(groups)]
    difference, std = np.abs(all_found - all_wanted), float(all_wanted.std())
    tolerance = TOLERANCES[precision]
    parity = Parity(
        n_rows=len(all_wanted),
        n_batches=len(wanted),
        longest_row=max(_longest(ids) for ids in others),
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        max_batch_effect=float(np.max(alone)),  # NaN if any is
        reward_std=std,
        spearman=spearman(all_wanted, all_found),
        best_agreement=float(np.mean(best)),
        tolerance=tolerance.max_difference * (std if tolerance.in_reward_stds else 1.0),
    )
    _hold(parity, tolerance)
    return parity


def _batch_effect(
    session: onnxruntime.InferenceSession, ids: Ids, together: NDArray[np.float32], *, every: bool
) -> float:
    """The largest change of a row's reward when it is scored alone, of all rows or the last."""
    rows = range(len(ids)) if every else [len(ids) - 1]
    alone = np.array([_run(session, ids[row : row + 1])[0, 0] for row in rows])
    return float(np.abs(alone - together[list(rows)]).max())


def _hold(parity: Parity, tolerance: Tolerance) -> None:
    # ranks decide for these, and a checkpoint whose rewards hardly differ has none to keep
    remedy = "; try --precision fp32" if tolerance.in_reward_stds else ""
    checks = (
        ("largest difference", parity.max_difference, "at most", parity.tolerance),
        ("effect of batch mates", parity.max_batch_effect, "at most", BATCH_EFFECT),
        ("rank correlation", parity.spearman, "at least", tolerance.spearman),
        ("agreement on the best", parity.best_agreement, "at least", tolerance.best_agreement),
    )
    for what, value, relation, limit in checks:
        # phrased so that NaN fails
        if not (value <= limit if relation == "at most" else value >= limit):
            raise ParityError(
                f"the graph does not give PyTorch's rewards: {what} is {value:.3g}, and has to be "
                f"{relation} {limit:.3g}; nothing was published{remedy}",
                difference=parity.max_difference,
                tolerance=parity.tolerance,
            )


def _longest(ids: Ids) -> int:
    return int(np.max(np.nonzero(ids != CONTRACT.pad_token_id)[1])) + 1


def _check_isolation(session: onnxruntime.InferenceSession, ids: Ids, n_positions: int) -> None:
    """A row that cannot be scored answers NaN for itself alone."""
    width = n_positions + 1
    clean = np.full((len(ids), width), CONTRACT.pad_token_id, np.int32)
    clean[:, : ids.shape[1]] = ids
    poisoned = clean.copy()
    poisoned[0, 0] = -1
    poisoned[1, n_positions - 1] = CONTRACT.vocab_size  # the last position, behind padding
    poisoned[-1] = 0  # a valid id throughout, one position too many
    bad, good = [0, 1, -1], slice(2, -1)
    wanted, found = _run(session, clean), _run(session, poisoned)
    moved = float(np.max(np.abs(found[good] - wanted[good])))
    if not (np.isnan(found[bad]).all() and moved <= BATCH_EFFECT):
        raise ExportError(
            f"rows that cannot be scored answered {found[bad, 0]} instead of NaN, or moved their "
            f"batch mates (by {moved:.3g})"
        )


def _run(session: onnxruntime.InferenceSession, ids: Ids) -> NDArray[np.float32]:
    rewards: NDArray[np.float32] = session.run([REWARD.name], {INPUT_IDS.name: ids})[0]
    return rewards


def groups_of_candidates() -> Iterator[Ids]:
    """Real contexts, each with eight real replies: what rankings are judged by. int32 [8, S]."""
    return _groups(conversations()[:24])


def calibration_groups() -> Iterator[Ids]:
    """The same from other conversations: what quantisation may look at beforehand."""
    return _groups(conversations()[24:])


def _groups(dialogues: Sequence[Conversation]) -> Iterator[Ids]:
    tokenizer = Tokenizer()
    replies = [turn for dialogue in dialogues for turn in dialogue.turns[5:7]]
    for i, dialogue in enumerate(dialogues):
        context = "\n".join(dialogue.turns[: 3 + i % 5])
        others = [replies[(3 * i + j) % len(replies)] for j in range(GROUP - 1)]
        candidates = [dialogue.turns[3 + i % 5], *others]
        yield pad_rows([tokenizer.encode(f"{context}\n{candidate}") for candidate in candidates])


def _batches(n_positions: int) -> Iterator[Ids]:
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
