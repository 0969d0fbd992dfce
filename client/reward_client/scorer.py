"""Rewards as columns of a data set: a callable for engines that map over batches.

ray.data.read_parquet("rows/").map_batches(RewardScorer("reward:8001"), ...)
datasets.load_dataset(...).map(RewardScorer("reward:8001"), batched=True)
RewardScorer("reward:8001")(pandas_frame)
"""

import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from reward_client.bulk.patience import PASSING, pause_s
from reward_client.client import RewardClient
from reward_client.connection import Connection
from reward_client.errors import InvalidInputError, NonFiniteRewardError
from reward_client.results import Scores
from reward_contract.errors import RewardError

Batch = TypeVar("Batch")
Values = dict[str, list[object]]

ADDED = ("reward", "probability", "model_version")
NOT_FINITE = "the model's reward is NaN or infinite"


class RewardScorer:
    """Adds the columns `reward`, `probability` and `model_version` to batches.

    It is pickled without its connection: every process makes a client of its own at its first
    batch. Requests have the priority `bulk`. A text is the column `text_column`, or the columns
    `context_column` and `candidate_column` joined as they are.

    Args:
        url: as `RewardClient`'s.
        text_column: of whole texts; None if there are contexts and candidates.
        context_column: of contexts.
        candidate_column: of candidates.
        on_error: what a row does that cannot be scored: `raise` ends the batch; `null` gives it
            null rewards, and adds a column `reward_error` with the reason, null for all others.
        timeout_s: seconds for the request of one batch.
        patience_s: seconds to wait for a server that is away, restarts or is full.
        model_version: the version to ask; the server's choice if None. Pin it: versions may be
            exchanged between two batches, and their rewards are not comparable.
        connection: as `RewardClient`'s.

    Raises:
        ValueError: an `on_error` that is not known.
    """

    def __init__(  # noqa: PLR0913  # by keyword, each with a default
        self,
        url: str | Sequence[str] = "localhost:8001",
        *,
        text_column: str | None = None,
        context_column: str = "context",
        candidate_column: str = "candidate",
        on_error: Literal["raise", "null"] = "raise",
        timeout_s: float = 600.0,
        patience_s: float = 600.0,
        model_version: int | None = None,
        connection: Connection | None = None,
    ) -> None:
        if on_error not in get_args(Literal["raise", "null"]):
            raise ValueError(f"on_error must be 'raise' or 'null', not {on_error!r}")
        self._columns = [text_column] if text_column else [context_column, candidate_column]
        self._url = url
        self._on_error = on_error
        self._patience_s = patience_s
        self._options: dict[str, Any] = {
            "timeout_s": timeout_s,
            "model_version": model_version,
            "connection": connection,
        }
        self._client: RewardClient | None = None
        self._owner = 0

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_client": None, "_owner": 0}

    def __call__(self, batch: Batch) -> Batch:
        """The batch with the new columns, of the kind that it was.

        Args:
            batch: a dict of columns (lists or arrays), a `pyarrow.Table` or a
                `pandas.DataFrame`, of any number of rows.

        Returns:
            The same rows in the same order. `reward` is the raw logit, `probability` its
            sigmoid, calibrated if the model is; both are float32 in arrays and tables.

        Raises:
            InvalidInputError: a column is missing or would be replaced; or, with `raise`, a row
                is not text.
            NonFiniteRewardError: with `raise`, the model's reward of a row is NaN.
            ServerError: no answer within `patience_s`.
        """
        columns = _column_names(batch)
        if missing := [name for name in self._columns if name not in columns]:
            raise InvalidInputError(f"the batch has no column {missing}; it has {columns}")
        added = (*ADDED, "reward_error") if self._on_error == "null" else ADDED
        if taken := [name for name in added if name in columns]:
            raise InvalidInputError(f"the batch has columns {taken} already; rename them first")
        parts = [_values(batch, name) for name in self._columns]
        found: Batch = _with_columns(batch, self._score(list(zip(*parts, strict=True))))
        return found

    def _score(self, rows: Sequence[tuple[object, ...]]) -> Values:
        """The new columns, null where a row has no reward."""
        reasons: list[object] = [_unfit(row) for row in rows]
        if self._on_error == "raise" and (bad := [i for i, one in enumerate(reasons) if one]):
            raise InvalidInputError(f"row {bad[0]} of the batch {reasons[bad[0]]}", row=bad[0])
        rewards: list[object] = [None] * len(rows)
        probabilities: list[object] = [None] * len(rows)
        versions: list[object] = [None] * len(rows)
        left = [i for i, reason in enumerate(reasons) if reason is None]
        while left:
            try:
                scores = self._answered(["".join(map(str, rows[i])) for i in left])
            except NonFiniteRewardError as error:
                if self._on_error == "raise":
                    raise
                for bad_row in error.rows:
                    reasons[left[bad_row]] = NOT_FINITE
                left = [i for i in left if reasons[i] is None]
            else:
                values = zip(
                    left, scores.rewards.tolist(), scores.probabilities.tolist(), strict=True
                )
                for i, reward, probability in values:
                    rewards[i], probabilities[i] = reward, probability
                    versions[i] = scores.model_version
                break
        found: Values = {
            "reward": rewards,
            "probability": probabilities,
            "model_version": versions,
        }
        return {**found, "reward_error": reasons} if self._on_error == "null" else found

    def _answered(self, texts: Sequence[str]) -> Scores:
        deadline = time.monotonic() + self._patience_s
        for attempt in itertools.count(1):
            try:
                return self._connected().score(texts)
            except PASSING:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise
                time.sleep(min(pause_s(attempt), left_s))
        raise AssertionError("the loop above ends by itself")

    def _connected(self) -> RewardClient:
        if self._client is None or self._owner != os.getpid():  # a fork leaves connections behind
            self._client = RewardClient(self._url, priority="bulk", **self._options)
            self._owner = os.getpid()
        return self._client


def _unfit(row: tuple[object, ...]) -> str | None:
    """Why a row cannot be scored; never its text."""
    for part in row:
        if not isinstance(part, str):
            return f"is {type(part).__name__}, not a string"
        try:
            part.encode("utf-8")
        except UnicodeEncodeError:
            return "has a lone surrogate, which is not Unicode text"
    return None


def _column_names(batch: object) -> list[str]:
    if isinstance(batch, Mapping):
        return [str(name) for name in batch]
    names: Any = getattr(batch, "column_names", None)  # Arrow
    if names is None:
        names = getattr(batch, "columns", None)  # pandas
    if names is None:
        raise InvalidInputError(
            f"a batch is a dict of columns, an Arrow table or a data frame, not "
            f"{type(batch).__name__}"
        )
    return [str(name) for name in names]


def _values(batch: Any, name: str) -> list[object]:  # noqa: ANN401  # any of three libraries
    column = batch[name]
    to_list: Callable[[], list[object]] | None = getattr(
        column, "to_pylist", getattr(column, "tolist", None)
    )
    return list(column) if to_list is None else to_list()


def _with_columns(batch: Any, added: Values) -> Any:  # noqa: ANN401  # any of three libraries
    if isinstance(batch, Mapping):
        is_array = any(isinstance(column, np.ndarray) for column in batch.values())
        return {**batch, **(_arrays(added) if is_array else added)}
    if hasattr(batch, "append_column"):
        return _with_arrow(batch, added)
    return batch.assign(**_arrays(added))


def _arrays(added: Values) -> dict[str, object]:
    """Rewards that are null are NaN in arrays, and versions 0."""
    return {
        name: np.array(values, object)
        if name == "reward_error"
        else np.array([0 if one is None else one for one in values], np.int64)
        if name == "model_version"
        else np.array([np.nan if one is None else one for one in values], np.float32)
        for name, values in added.items()
    }


def _with_arrow(table: Any, added: Values) -> Any:  # noqa: ANN401  # pyarrow is an extra
    try:
        import pyarrow as pa  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise RewardError("Arrow tables need pip install 'gpt2-reward[parquet]'") from error
    types = {"model_version": pa.int64(), "reward_error": pa.string()}
    for name, values in added.items():
        table = table.append_column(name, pa.array(values, types.get(name, pa.float32())))
    return table
