"""Checks that the graph on ONNX Runtime gives the rewards of the checkpoint in PyTorch.

This is done before anything is published, on real conversations of many lengths and on rows
with which padding, pooling and the prefix tree could go wrong. float32 may differ only slightly;
the smaller precisions have to do what they are for: rank candidates as float32 does.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tqdm import tqdm

from reward_contract import CONTRACT, INPUT_IDS, REWARD
from reward_contract.cpu import session_entries
from reward_export.batches import groups_of_candidates, other_batches
from reward_export.errors import ExportError, ParityError
from reward_export.precision import CUDA_OPTIONS, PROVIDERS, Tolerance
from reward_export.ranks import spearman

CUDA = PROVIDERS["cuda"]
ALL_ROWS_EVERY = 6  # in one of this many batches all rows are scored alone; in others, the last


Ids = NDArray[np.int32]


class Reference(Protocol):
    """What the graph is compared with."""

    def rewards(self, ids: Ids) -> NDArray[np.float32]:
        """[B, S] int32 ids to [B, 1] float32 rewards."""


class Remembered:
    """A reference that computes each batch once, however many graphs are compared with it."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._rewards: dict[tuple[tuple[int, ...], bytes], NDArray[np.float32]] = {}

    def rewards(self, ids: Ids) -> NDArray[np.float32]:
        """See `Reference`."""
        key = ids.shape, ids.tobytes()
        if key not in self._rewards:
            self._rewards[key] = self._reference.rewards(ids)
        return self._rewards[key]


@dataclass(frozen=True, slots=True)
class Parity:
    """What the comparison measured.

    Attributes:
        n_rows: rows compared.
        n_batches: batches that they came in.
        longest_row: tokens of the longest row.
        max_difference: largest absolute difference of a reward.
        mean_difference: mean absolute difference.
        max_batch_effect: largest change of a row's reward with its batch mates.
        reward_std: standard deviation of the reference's rewards, as a scale for differences.
        spearman: rank correlation of the rewards with the reference's.
        best_agreement: share of groups of eight candidates with the reference's best one.
        tolerance: limit of `max_difference`.
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
        """The measurements, for the manifest."""
        return asdict(self)


def open_session(
    graph: Path, providers: Sequence[str] = ("CPUExecutionProvider",)
) -> onnxruntime.InferenceSession:
    """Open a graph on ONNX Runtime, and check its inputs and outputs against the contract.

    Args:
        graph: the graph's file.
        providers: execution providers to use if installed, the preferred one first; CUDA's gets
            the options that it is served with.

    Raises:
        ExportError: inputs or outputs do not fit the contract, or the provider did not start.
    """
    options = onnxruntime.SessionOptions()
    for entry in session_entries().items():
        options.add_session_config_entry(*entry)
    installed = [name for name in providers if name in onnxruntime.get_available_providers()]
    if CUDA in installed and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA installed by pip is not on any library path
    chosen = [(name, CUDA_OPTIONS if name == CUDA else {}) for name in installed]
    session = onnxruntime.InferenceSession(str(graph), options, providers=chosen)
    if session.get_providers()[0] != installed[0]:  # ONNX Runtime only warns, and uses the CPU
        raise ExportError(
            f"ONNX Runtime has {installed[0]} and could not start it; look for its warning above. "
            "On a machine without a GPU, install onnxruntime instead of onnxruntime-gpu"
        )
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
    tolerance: Tolerance,
) -> Parity:
    """Compare the graph with the reference.

    Args:
        session: the graph.
        reference: gives the correct rewards.
        n_positions: length of the longest row that can be scored.
        tolerance: limits for the rewards.

    Raises:
        ParityError: the rewards are outside a limit.
        ExportError: the reward of an unscorable row was not NaN, or the row changed others'.
    """
    groups, others = list(groups_of_candidates()), list(other_batches(n_positions))
    wanted, found, alone = [], [], []
    for ids in tqdm([*groups, *others], desc="comparing with PyTorch", unit="batch"):
        wanted.append(reference.rewards(ids)[:, 0])
        found.append(_run(session, ids)[:, 0])
        if len(ids) > 1:
            alone.append(
                _batch_effect(session, ids, found[-1], every=len(found) % ALL_ROWS_EVERY == 1)
            )
    all_wanted, all_found = np.concatenate(wanted), np.concatenate(found)
    best = [w.argmax() == f.argmax() for w, f in zip(wanted, found, strict=True)][: len(groups)]
    difference, std = np.abs(all_found - all_wanted), float(all_wanted.std())
    batch_effect = tolerance.batch_effect * (std if tolerance.batch_effect_in_reward_stds else 1.0)
    _check_isolation(session, groups[0], n_positions, batch_effect)
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
    _hold(parity, tolerance, batch_effect)
    return parity


def _batch_effect(
    session: onnxruntime.InferenceSession, ids: Ids, together: NDArray[np.float32], *, every: bool
) -> float:
    """The largest change of a reward when its row is scored alone: of all rows, or of the last."""
    rows = range(len(ids)) if every else [len(ids) - 1]
    alone = np.array([_run(session, ids[row : row + 1])[0, 0] for row in rows])
    return float(np.abs(alone - together[list(rows)]).max())


def _hold(parity: Parity, tolerance: Tolerance, batch_effect: float) -> None:
    # judged by ranks, which mean little if a checkpoint's rewards hardly differ
    remedy = "; try --precision fp32" if tolerance.in_reward_stds else ""
    checks = (
        ("largest difference", parity.max_difference, "at most", parity.tolerance),
        ("effect of batch mates", parity.max_batch_effect, "at most", batch_effect),
        ("rank correlation", parity.spearman, "at least", tolerance.spearman),
        ("agreement on the best", parity.best_agreement, "at least", tolerance.best_agreement),
    )
    for what, value, relation, limit in checks:
        # written so that NaN fails
        if not (value <= limit if relation == "at most" else value >= limit):
            raise ParityError(
                f"the graph does not give PyTorch's rewards: {what} is {value:.3g}, and has to be "
                f"{relation} {limit:.3g}; nothing was published{remedy}",
                difference=parity.max_difference,
                tolerance=parity.tolerance,
            )


def _longest(ids: Ids) -> int:
    return int(np.max(np.nonzero(ids != CONTRACT.pad_token_id)[1])) + 1


def _check_isolation(
    session: onnxruntime.InferenceSession, ids: Ids, n_positions: int, batch_effect: float
) -> None:
    """Check that a row that cannot be scored gets NaN, and does not affect other rows."""
    width = n_positions + 1
    clean = np.full((len(ids), width), CONTRACT.pad_token_id, np.int32)
    clean[:, : ids.shape[1]] = ids
    poisoned = clean.copy()
    poisoned[0, 0] = -1
    poisoned[1, n_positions - 1] = CONTRACT.vocab_size  # the last position, after padding
    poisoned[-1] = 0  # a valid id throughout, one position too many
    bad, good = [0, 1, -1], slice(2, -1)
    wanted, found = _run(session, clean), _run(session, poisoned)
    moved = float(np.max(np.abs(found[good] - wanted[good])))
    if not (np.isnan(found[bad]).all() and moved <= batch_effect):
        raise ExportError(
            f"rows that cannot be scored got {found[bad, 0]} instead of NaN, or changed the "
            f"rewards of their batch mates (by {moved:.3g}, at most {batch_effect:.3g} is allowed)"
        )


def _run(session: onnxruntime.InferenceSession, ids: Ids) -> NDArray[np.float32]:
    rewards: NDArray[np.float32] = session.run([REWARD.name], {INPUT_IDS.name: ids})[0]
    return rewards
