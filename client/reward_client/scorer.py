"""Rewards as columns of a data set: a callable for engines that map over batches.

ray.data.read_parquet("rows/").map_batches(RewardScorer("reward:8001"), ...)
datasets.load_dataset(...).map(RewardScorer("reward:8001"), batched=True)
RewardScorer("reward:8001")(pandas_frame)
"""

import itertools
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import numpy as np

from reward_client.bulk.patience import PASSING, pause_s
from reward_client.client import RewardClient
from reward_client.connection import Connection
from reward_client.encoding import encode_groups, encode_texts
from reward_client.errors import InvalidInputError, NonFiniteRewardError
from reward_client.options import format_of
from reward_client.results import Scores
from reward_contract import MODEL_NAME
from reward_contract.errors import RewardError
from reward_text import Context, Format, context_of, is_chat
from reward_text.tokens import is_unicode

if TYPE_CHECKING:
    from reward_client.calls import Encode

__all__ = ["RewardScorer"]

Batch = TypeVar("Batch")
Values = dict[str, list[object]]

ADDED = ("reward", "probability", "n_tokens", "n_truncated", "model", "model_version")
TEXTS = ("model", "reward_error")
COUNTS = ("n_tokens", "n_truncated", "model_version")
NOT_FINITE = "the model's reward is NaN or infinite"


class RewardScorer:
    """Adds rewards, and columns that describe them, to batches.

    It is pickled without its connection: every process makes one client at its first batch, and
    all copies of the scorer that the process unpickles share it. Requests have the priority
    `bulk`. The texts are the column `text_column`, or the columns `context_column` and
    `candidate_column`. A context is text, joined with the candidate unchanged, or messages, which
    are rendered in the model's format, without a persona or a prompt of their own.

    Args:
        url: as in `RewardClient`.
        text_column: column of whole texts; None if there are contexts and candidates.
        context_column: column of contexts, each of them text or messages.
        candidate_column: column of candidates.
        on_error: what to do with a row that cannot be scored: `raise` ends the batch; `null` gives
            it null rewards, and adds a column `reward_error` with the reason, null for all others.
        timeout_s: seconds for the request of one batch.
        patience_s: seconds to wait for a server that is down, restarting or full.
        model: name of the model.
        model_version: the version to ask; the server's choice if None. Pin it: the version may
            change between two batches, and the rewards of two versions are not comparable.
        connection: as in `RewardClient`.
        chat_format: as in `RewardClient`.

    Raises:
        ValueError: `on_error` is neither `raise` nor `null`, or there is no format of that name.
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
        model: str = MODEL_NAME,
        model_version: int | None = None,
        connection: Connection | None = None,
        chat_format: Format | str | None = None,
    ) -> None:
        if on_error not in get_args(Literal["raise", "null"]):
            raise ValueError(f"on_error must be 'raise' or 'null', not {on_error!r}")
        self._columns = [text_column] if text_column else [context_column, candidate_column]
        self._url = url
        self._on_error = on_error
        self._patience_s = patience_s
        self._options: dict[str, Any] = {
            "timeout_s": timeout_s,
            "model": model,
            "model_version": model_version,
            "connection": connection,
            "chat_format": format_of(chat_format),
        }
        self._key = uuid.uuid4().hex  # of this scorer and its copies

    def __call__(self, batch: Batch) -> Batch:
        """The batch with the new columns, of the same type as it was given.

        Args:
            batch: a dict of columns (lists or arrays), a `pyarrow.Table` or a
                `pandas.DataFrame`, of any number of rows.

        Returns:
            The same rows in the same order. `reward` is the raw logit, `probability` its
            sigmoid, calibrated if the model is, both float32 in arrays and tables; `n_tokens` is
            the number of tokens that the model read, and `n_truncated` is 1 if the row was longer
            than the model's window and lost its beginning, else 0, so its sum counts rows; `model`
            and `model_version` say which model answered.

        Raises:
            InvalidInputError: a column is missing or would be replaced; or, with `raise`, a row
                is neither text nor messages.
            NoFormatError: there are messages, and the model does not say how it reads them.
            NonFiniteRewardError: with `raise`, the model's reward for a row is NaN or infinite.
            ServerError: there was no answer within `patience_s`, or waiting does not help.
        """
        columns = _column_names(batch)
        if missing := [name for name in self._columns if name not in columns]:
            raise InvalidInputError(f"the batch has no column {missing}; it has {columns}")
        added = (*ADDED, "reward_error") if self._on_error == "null" else ADDED
        if taken := [name for name in added if name in columns]:
            raise InvalidInputError(f"the batch already has columns {taken}; rename them first")
        parts = [_values(batch, name) for name in self._columns]
        if len(parts) == 1:
            parts.insert(0, [""] * len(parts[0]))  # a text has the tokens of a candidate alone
        found: Batch = _with_columns(batch, self._score(list(zip(*parts, strict=True))))
        return found

    def _score(self, values: Sequence[tuple[object, object]]) -> Values:
        """The new columns, null in the rows that have no reward."""
        rows: list[tuple[Context, str]] = []
        reasons: list[object] = []
        for number, row in enumerate(values):
            try:
                rows.append(_row(*map(_listed, row)))
                reasons.append(None)
            except InvalidInputError as error:
                if self._on_error == "raise":
                    raise InvalidInputError(
                        f"row {number} of the batch: {error}", row=number
                    ) from error
                rows.append(("", ""))  # is not sent
                reasons.append(str(error))
        found: Values = {name: [None] * len(rows) for name in ADDED}
        left = [i for i, reason in enumerate(reasons) if reason is None]
        while left:
            try:
                scores = self._answered([rows[i] for i in left])
            except NonFiniteRewardError as error:
                if self._on_error == "raise":
                    raise
                for bad_row in error.rows:
                    reasons[left[bad_row]] = NOT_FINITE
                left = [i for i in left if reasons[i] is None]
            else:
                self._fill(found, left, scores)
                break
        return {**found, "reward_error": reasons} if self._on_error == "null" else found

    def _fill(self, found: Values, rows: Sequence[int], scores: Scores) -> None:
        answers: Values = {
            "reward": scores.rewards.tolist(),
            "probability": scores.probabilities.tolist(),
            "n_tokens": scores.lengths.tolist(),
            "n_truncated": scores.is_truncated.astype(int).tolist(),
            "model": [self._options["model"]] * len(rows),
            "model_version": [scores.model_version] * len(rows),
        }
        for name, values in answers.items():
            for row, value in zip(rows, values, strict=True):
                found[name][row] = value

    def _answered(self, rows: Sequence[tuple[Context, str]]) -> Scores:
        encode: Encode
        if chats := any(is_chat(context) for context, _ in rows):
            groups = [(context, [candidate]) for context, candidate in rows]
            encode = partial(encode_groups, groups, "left", "raise", 0)
        else:
            encode = partial(encode_texts, [f"{context}{candidate}" for context, candidate in rows])
        deadline = time.monotonic() + self._patience_s
        for attempt in itertools.count(1):
            try:
                return self._connected()._rewards(encode, is_chat=chats)  # noqa: SLF001  # as bulk
            except PASSING:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise
                time.sleep(min(pause_s(attempt), left_s))
        raise AssertionError("the loop above ends by itself")

    def _connected(self) -> RewardClient:
        """The client of this process: engines unpickle a scorer for each of their tasks."""
        key = os.getpid(), self._key  # a fork cannot use its parent's connections
        with _LOCK:
            if key not in _CLIENTS:
                _CLIENTS[key] = RewardClient(self._url, priority="bulk", **self._options)
            return _CLIENTS[key]


_CLIENTS: dict[tuple[int, str], RewardClient] = {}
_LOCK = threading.Lock()
os.register_at_fork(after_in_child=lambda: globals().update(_LOCK=threading.Lock()))


def _row(context: object, candidate: object) -> tuple[Context, str]:
    """A row to score.

    Raises:
        InvalidInputError: it is not text or messages; the error says why, without its text.
    """
    if not isinstance(candidate, str):
        raise InvalidInputError(f"it is {type(candidate).__name__}, not a string")
    if not (isinstance(context, str) or is_chat(context)):
        raise InvalidInputError(f"its context is {type(context).__name__}, not text or messages")
    for text in (context, candidate):
        if isinstance(text, str) and not is_unicode(text):
            raise InvalidInputError("it has a lone surrogate, which is not Unicode text")
    return context_of({"context": context}), candidate


def _listed(value: object) -> object:
    """The value with arrays made into the lists that they were before Arrow or pandas held them."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list):
        return [_listed(one) for one in value]
    if isinstance(value, dict):
        return {key: _listed(one) for key, one in value.items()}
    return value


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
    """The columns as arrays, in which null rewards are NaN, and null counts and versions 0."""
    return {
        name: np.array(values, object)
        if name in TEXTS
        else np.array([one or 0 for one in values], np.int64)
        if name in COUNTS
        else np.array([np.nan if one is None else one for one in values], np.float32)
        for name, values in added.items()
    }


def _with_arrow(table: Any, added: Values) -> Any:  # noqa: ANN401  # pyarrow is an extra
    try:
        import pyarrow as pa  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise RewardError("Arrow tables need pip install 'gpt2-reward[parquet]'") from error
    types = dict.fromkeys(TEXTS, pa.string()) | dict.fromkeys(COUNTS, pa.int64())
    for name, values in added.items():
        table = table.append_column(name, pa.array(values, types.get(name, pa.float32())))
    return table
