"""What a call gives back: plain values."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from reward_client.errors import InvalidInputError

Rewards: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """Who answers.

    Attributes:
        url: the address that was asked.
        name: what the server calls itself.
        version: of the server, such as `2.51.0`.
        model: name of the model.
        model_versions: its versions that answer, ascending.
        max_batch_rows: rows that fit into one request.
    """

    url: str
    name: str
    version: str
    model: str
    model_versions: tuple[int, ...]
    max_batch_rows: int


@dataclass(frozen=True, slots=True)
class RankedCandidate:
    """One candidate with its reward.

    Attributes:
        text: the candidate, as given.
        reward: the raw logit; higher is better.
        index: its place in the input.
        n_tokens: tokens of the row that was scored, its context included.
        is_truncated: whether the row lost its beginning, being longer than the model reads.
    """

    text: str
    reward: float
    index: int
    n_tokens: int = field(default=0, compare=False)
    is_truncated: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Ranking:
    """The candidates of a group, best first; equal ones in the order given.

    Iterating, `len` and indexing go over `candidates`.

    Attributes:
        candidates: empty where there were none.
        model_version: the version that answered; None where nobody was asked.
        error: why the group's input could not be scored, if `on_error` is `nan`; all its
            rewards are NaN then. None otherwise.
    """

    candidates: tuple[RankedCandidate, ...]
    model_version: int | None
    error: InvalidInputError | None = None

    @property
    def rewards(self) -> Rewards:
        """The rewards in the order of the input. -> float32 [n]."""
        rewards = np.empty(len(self.candidates), np.float32)
        for candidate in self.candidates:
            rewards[candidate.index] = candidate.reward
        return rewards

    @property
    def best(self) -> RankedCandidate:
        """The candidate to show.

        Raises:
            IndexError: the group has no candidates.
        """
        return self.candidates[0]

    def __iter__(self) -> Iterator[RankedCandidate]:
        return iter(self.candidates)

    def __len__(self) -> int:
        return len(self.candidates)

    def __getitem__(self, rank: int) -> RankedCandidate:
        return self.candidates[rank]


@dataclass(frozen=True, slots=True, eq=False)  # arrays do not compare to one truth value
class Scores:
    """The rewards of a call's texts.

    Attributes:
        rewards: float32 [n], raw logits in the order of the texts; higher is better.
        model_version: the version that answered; None where nobody was asked.
        n_tokens: real tokens that were sent, of all rows together.
        n_truncated: rows that lost their beginning, being longer than the model reads.
        lengths: int [n], real tokens of each row.
        is_truncated: bool [n], whether each row lost its beginning. How many tokens it lost is
            not known: what the model cannot see is not tokenised.
    """

    rewards: Rewards
    model_version: int | None
    n_tokens: int
    n_truncated: int
    lengths: NDArray[np.int64]
    is_truncated: NDArray[np.bool_]
