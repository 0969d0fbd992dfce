"""Computes many requests in one run, and gives each request its own rows back."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Arrays: TypeAlias = Mapping[str, NDArray[np.generic]]
Run: TypeAlias = Callable[[Arrays], Arrays]


def run_together(requests: Sequence[Arrays], run: Run) -> list[Arrays | Exception]:
    """What `run` returns for each request, computed in as few runs as the shapes allow.

    Args:
        requests: all with the same names; the arrays of one have equally many rows (axis 0).
        run: computes all outputs from all inputs; output rows correspond to input rows.

    Returns:
        for each request its outputs, or the exception that it raised in a run of its own. A
        request that fails does not fail the others in its batch.
    """
    run = _keeping_rows(run)
    answers: list[Arrays | Exception] = [RuntimeError("not run")] * len(requests)
    for members in _by_shape(requests):
        together = _run_members([requests[i] for i in members], run)
        for i, answer in zip(members, together, strict=True):
            answers[i] = answer
    return answers


def run_apart(requests: Sequence[Arrays], run: Run) -> list[Arrays | Exception]:
    """What `run` returns for each request separately, for models without a batch dimension.

    Returns:
        for each request its outputs, or the exception that it raised.
    """
    return [_attempt(request, run) for request in requests]


def _by_shape(requests: Sequence[Arrays]) -> list[list[int]]:
    """Indices of requests that can be joined: their shapes differ in axis 0 only."""
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
    if isinstance(outputs, Exception):  # find out which request failed
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
    """`run`, but it is an error if it loses or adds rows: that would shift all later ones."""

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
