"""One run for many requests, and each request's own rows back."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Arrays: TypeAlias = Mapping[str, NDArray[np.generic]]
Run: TypeAlias = Callable[[Arrays], Arrays]


def run_together(requests: Sequence[Arrays], run: Run) -> list[Arrays | Exception]:
    """What `run` gives for each request, computed in as few runs as shapes allow.

    Args:
        requests: each with the same names, and the same rows (axis 0) in all its arrays.
        run: computes all outputs from all inputs; output rows are those of the inputs.

    Returns:
        for each request its outputs, or the exception that it raised by itself. A request
        that fails does not fail those that it was batched with.
    """
    run = _keeping_rows(run)
    answers: list[Arrays | Exception] = [RuntimeError("not run")] * len(requests)
    for members in _by_shape(requests):
        together = _run_members([requests[i] for i in members], run)
        for i, answer in zip(members, together, strict=True):
            answers[i] = answer
    return answers


def run_apart(requests: Sequence[Arrays], run: Run) -> list[Arrays | Exception]:
    """What `run` gives for each request by itself, for models without a batch dimension.

    Returns:
        for each request its outputs, or the exception that it raised.
    """
    return [_attempt(request, run) for request in requests]


def _by_shape(requests: Sequence[Arrays]) -> list[list[int]]:
    """Indices of requests that fit together: equal but for axis 0."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, request in enumerate(requests):
        key = tuple((name, array.dtype.str, array.shape[1:]) for name, array in request.items())
        groups.setdefault(key, []).append(i)
    return list(groups.values())


def _run_members(requests: Sequence[Arrays], run: Run) -> list[Arrays | Exception]:
    if len(requests) == 1:
        return run_apart(requests, run)
    names = requests[0].keys()
    joined = {name: np.concatenate([request[name] for request in requests]) for name in names}
    outputs = _attempt(joined, run)
    if isinstance(outputs, Exception):  # somebody's fault: find out whose
        return run_apart(requests, run)
    counts = [_n_rows(request) for request in requests]
    return list(_split(outputs, counts))


def _split(outputs: Arrays, counts: Sequence[int]) -> list[Arrays]:
    ends = np.cumsum(counts)
    return [
        {name: array[end - count : end] for name, array in outputs.items()}
        for count, end in zip(counts, ends, strict=True)
    ]


def _keeping_rows(run: Run) -> Run:
    """`run`, but rows that it loses or adds are an error: they would shift all behind them."""

    def checked(inputs: Arrays) -> Arrays:
        outputs = run(inputs)
        rows = {name: len(array) for name, array in outputs.items()}
        if any(count != _n_rows(inputs) for count in rows.values()):
            raise ValueError(f"{_n_rows(inputs)} rows went in, and came out as {rows}")
        return outputs

    return checked


def _attempt(request: Arrays, run: Run) -> Arrays | Exception:
    try:
        return run(request)
    except Exception as error:  # noqa: BLE001  # whatever it is, it is this request's answer
        return error


def _n_rows(request: Arrays) -> int:
    return len(next(iter(request.values())))
