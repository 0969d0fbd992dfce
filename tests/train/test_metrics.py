import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_train.metrics import calibration_error, pairwise_accuracy, roc_auc

ROWS = st.lists(st.tuples(st.integers(-2, 2), st.booleans()), min_size=2, max_size=12)


@given(ROWS)
def test_roc_auc_counts_pairs(rows: list[tuple[int, bool]]) -> None:
    accepted = [reward for reward, label in rows if label]
    other = [reward for reward, label in rows if not label]
    found = roc_auc([reward for reward, _ in rows], [label for _, label in rows])
    if not accepted or not other:
        assert np.isnan(found)
        return
    wins = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(accepted, other)]
    assert found == pytest.approx(sum(wins) / len(wins))


def test_calibration_error_of_hand_made_bins() -> None:
    assert calibration_error([0.05, 0.95, 0.95], [0, 1, 0]) == pytest.approx(0.95 / 3)
    assert calibration_error([0.25] * 4, [1, 0, 0, 0]) == pytest.approx(0)
    assert calibration_error([1.0, 0.0], [0, 1]) == pytest.approx(1)


def test_pairwise_accuracy_skips_groups_of_one_kind() -> None:
    groups = [
        (np.array([2.0, 1.0], np.float32), np.array([1.0, 0.0], np.float32)),
        (np.array([2.0, 3.0], np.float32), np.array([1.0, 0.0], np.float32)),
        (np.array([2.0, 3.0], np.float32), np.array([0.0, 0.0], np.float32)),
    ]
    assert pairwise_accuracy(groups) == pytest.approx(0.5)
