"""Joining requests and splitting answers, without a server."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_serve.backend.batching import Arrays, run_apart, run_together


def double(inputs: Arrays) -> Arrays:
    if (inputs["x"] < 0).any():
        raise ValueError("negative")
    return {"y": inputs["x"] * 2}


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3), st.booleans()), max_size=8),
)
def test_each_request_gets_what_it_would_get_alone(shapes: list[tuple[int, int, bool]]) -> None:
    rng = np.random.default_rng(0)
    requests = [
        {"x": rng.integers(-9 if bad else 0, 0 if bad else 9, (rows, width))}
        for rows, width, bad in shapes
    ]
    for request, answer in zip(requests, run_together(requests, double), strict=True):
        if (request["x"] < 0).any():
            assert isinstance(answer, ValueError)
        else:
            assert not isinstance(answer, Exception)
            np.testing.assert_array_equal(answer["y"], request["x"] * 2)


def test_requests_of_one_shape_take_one_run() -> None:
    runs = []

    def run(inputs: Arrays) -> Arrays:
        runs.append(inputs["x"].shape)
        return double(inputs)

    run_together([{"x": np.ones((rows, width))} for rows, width in ((1, 2), (2, 3), (3, 2))], run)
    assert runs == [(4, 2), (2, 3)]


def test_a_graph_that_loses_rows_is_an_error_and_not_a_shift() -> None:
    answers = run_together([{"x": np.ones((2, 1))}] * 2, lambda x: {"y": x["x"][:1]})
    assert all(isinstance(answer, ValueError) for answer in answers)
    with pytest.raises(ValueError, match=r"2 rows went in, and came out as {'y': 1}"):
        raise answers[0]


def test_apart_rows_may_change_and_failures_stay_with_their_request() -> None:
    requests = [{"x": np.array(values)} for values in ([1, 2], [-1], [3])]
    answers = run_apart(requests, lambda x: {"y": double(x)["y"].sum()})
    assert [answers[0], answers[2]] == [{"y": 6}, {"y": 6}]
    assert isinstance(answers[1], ValueError)
