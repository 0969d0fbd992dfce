from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from reward_client import RewardClient
from reward_client.testing import FakeServer


def first_token(ids: NDArray[np.int32]) -> NDArray[np.float32]:
    """A reward that a test can foretell."""
    return (ids[:, 0] / 100).astype(np.float32)


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer(first_token, max_batch_rows=4) as server:
        yield server


@pytest.fixture
def client(fake: FakeServer) -> Iterator[RewardClient]:
    with RewardClient(fake.url, timeout_s=5) as client:
        yield client
