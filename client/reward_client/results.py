"""What calls return: plain values."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from reward_client.errors import InvalidInputError
from reward_contract.facts import Golden
from reward_text import Calibration, Format, Usage

Rewards: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a server says about one version of its model.

    Attributes:
        version: its number.
        usage: how it wants to be asked. If the server does not say: a window of 256 tokens, no
            format of conversations, and probabilities that are not calibrated.
        identity: SHA-256 of graph and weights together; None if the server does not say. Equal
            version numbers mean equal models within one repository, equal identities everywhere.
        source: hub id or folder of the checkpoint; None if the server does not say.
        revision: the hub's commit, or what identifies a folder's weights; None if the server does
            not say.
        golden: rows with the rewards that PyTorch gave them; None if the server does not say.
        precision: as `gpt2-reward export --precision` has it; None if the server does not say.
    """

    version: int
    usage: Usage = field(default_factory=Usage)
    identity: str | None = None
    source: str | None = None
    revision: str | None = None
    golden: Golden | None = field(default=None, compare=False, repr=False)
    precision: str | None = None


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a server says about itself and its model.

    Attributes:
        url: the address that was asked.
        name: what the server calls itself.
        version: version of the server, such as `2.51.0`.
        model: name of the model.
        model_versions: versions of the model that answer, ascending.
        max_batch_rows: rows that fit into one request.
        models: what the server says about each of those versions, in the same order.
    """

    url: str
    name: str
    version: str
    model: str
    model_versions: tuple[int, ...]
    max_batch_rows: int
    models: tuple[ModelInfo, ...] = ()

    def of_version(self, version: int) -> ModelInfo | None:
        """What the server says about a version; None if it does not have that version."""
        return next((one for one in self.models if one.version == version), None)


@dataclass(frozen=True, slots=True)
class RankedCandidate:
    """One candidate with its reward.

    Attributes:
        text: the candidate, as given.
        reward: the raw logit; higher is better. For several models, the log odds of `probability`.
        index: its index in the input.
        n_tokens: tokens of the row that was scored, its context included; for several models, the
            most that one of them read.
        is_truncated: whether the row was longer than the model's window and lost its beginning;
            for several models, whether any of their rows did.
        probability: probability of acceptance, from 0 to 1: the sigmoid of the reward, calibrated
            if the model is (`Calibration`); NaN if the reward is. For several models, the weighted
            mean of their probabilities.
    """

    text: str
    reward: float
    index: int
    n_tokens: int = field(default=0, compare=False)
    is_truncated: bool = field(default=False, compare=False)
    probability: float = field(default=math.nan, compare=False)


@dataclass(frozen=True, slots=True)
class Ranking:
    """The candidates of a group, best first; equal ones in the order given.

    Iterating, `len` and indexing go over `candidates`.

    Attributes:
        candidates: empty if there were none.
        model_version: the version that answered; None if no server, or several models, were asked.
        error: why the group's input could not be scored, if `on_error` is `nan`; all its
            rewards are NaN then. None otherwise.
        model: what the server says about that version; None if `model_version` is.
        chat_format: the format in which the context, a conversation, was rendered; None for a
            text, and for several models.
        of_model: if several models were asked, each one's own ranking of the same candidates, by
            its name: its rewards, probabilities, version and format. Empty otherwise.
    """

    candidates: tuple[RankedCandidate, ...]
    model_version: int | None
    error: InvalidInputError | None = None
    model: ModelInfo | None = field(default=None, compare=False)
    chat_format: Format | None = field(default=None, compare=False)
    of_model: "Mapping[str, Ranking]" = field(default_factory=dict, compare=False)

    @property
    def rewards(self) -> Rewards:
        """The rewards in the order of the input. -> float32 [n]."""
        return self._in_input_order([candidate.reward for candidate in self.candidates])

    @property
    def probabilities(self) -> Rewards:
        """The probabilities of acceptance in the order of the input. -> float32 [n]."""
        return self._in_input_order([candidate.probability for candidate in self.candidates])

    @property
    def best(self) -> RankedCandidate:
        """The candidate to show.

        Raises:
            IndexError: the group has no candidates.
        """
        return self.candidates[0]

    def best_above(self, probability: float) -> RankedCandidate | None:
        """The candidate to show if it is good enough; None if none of them is.

        Args:
            probability: the least that is good enough, from 0 to 1. What is sensible depends on
                the model, and on the share of replies that its labels call accepted.

        Raises:
            ValueError: `probability` is not from 0 to 1.
        """
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must be from 0 to 1, not {probability}")
        best = self.candidates[0] if self.candidates else None
        # phrased so that NaN is not good enough
        return best if best is not None and best.probability >= probability else None

    def _in_input_order(self, values: list[float]) -> Rewards:
        found = np.empty(len(values), np.float32)
        for candidate, value in zip(self.candidates, values, strict=True):
            found[candidate.index] = value
        return found

    def __iter__(self) -> Iterator[RankedCandidate]:
        return iter(self.candidates)

    def __len__(self) -> int:
        return len(self.candidates)

    def __getitem__(self, rank: int) -> RankedCandidate:
        return self.candidates[rank]


@dataclass(frozen=True, slots=True, eq=False)  # comparing arrays gives no single truth value
class Scores:
    """The rewards of a call's texts.

    Attributes:
        rewards: float32 [n], raw logits in the order of the texts; higher is better.
        model_version: the version that answered; None if no server was asked.
        n_tokens: real tokens that were sent, of all rows together.
        n_truncated: rows that were longer than the model's window and lost their beginning.
        lengths: int [n], real tokens of each row.
        is_truncated: bool [n], whether each row lost its beginning. How many tokens it lost is
            not known: what the model cannot see is not tokenised. `Tokenizer.n_tokens` counts all.
        model: what the server says about that version; None if no server was asked.
    """

    rewards: Rewards
    model_version: int | None
    n_tokens: int
    n_truncated: int
    lengths: NDArray[np.int64]
    is_truncated: NDArray[np.bool_]
    model: ModelInfo | None = None

    @property
    def probabilities(self) -> Rewards:
        """The probability of acceptance of each text, in their order. -> float32 [n]."""
        calibration = self.model.usage.calibration if self.model else Calibration()
        return calibration.probabilities(self.rewards)
