from collections.abc import Iterator

import pytest
from lookup import add_model, free_ports

from reward_serve.server import TritonServer


@pytest.fixture(scope="module")
def lookup_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = tmp_path_factory.mktemp("lookup")
    add_model(repository, "lookup")
    with TritonServer(free_ports(repository)) as server:
        yield server
