"""Errors that cross processes, forks, Ctrl-C, and event loops."""

import asyncio
import inspect
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from network import free_port, score_once
from waiting import HUNG_S

import reward_client
from reward_client import (
    AsyncRewardClient,
    ContractError,
    InvalidInputError,
    NonFiniteRewardError,
    RewardError,
    ServerError,
    UnavailableError,
)
from reward_client.bulk.errors import MalformedLineError
from reward_client.testing import FakeServer


def kinds(root: type[RewardError]) -> Iterator[type[RewardError]]:
    yield root
    for kind in root.__subclasses__():
        yield from kinds(kind)


def example(kind: type[RewardError]) -> RewardError:
    """An error with every field set."""
    values = {
        "url": "reward:8001",
        "code": "UNAVAILABLE",
        "attempts": 3,
        "rows": (1, 2),
        "row": 4,
        "group": 5,
        "line": 6,
        "differences": ("max_tokens",),
    }
    taken = inspect.signature(kind.__init__).parameters
    return kind("what happened", **{name: values[name] for name in taken if name in values})


@pytest.mark.parametrize(
    "kind",
    [
        *kinds(ServerError),
        RewardError,
        InvalidInputError,
        ContractError,
        NonFiniteRewardError,
        MalformedLineError,
    ],
)
def test_an_error_is_pickled_with_its_fields(kind: type[RewardError]) -> None:
    error = example(kind)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301  # our own
        assert type(copy) is kind
        assert str(copy) == "what happened"
        assert vars(copy) == vars(error)


def test_an_error_comes_out_of_a_pool_of_processes() -> None:
    url = f"127.0.0.1:{free_port()}"
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        with pytest.raises(UnavailableError) as caught:
            pool.apply_async(score_once, [url]).get(timeout=120)
        assert (caught.value.url, caught.value.attempts) == (url, 2)


IN_A_FORK = """
import os, sys
from reward_client import RewardClient
client = RewardClient(sys.argv[1], timeout_s=20)
client.score(["Hi"])
child = os.fork()
if not child:
    try:
        client.score(["Hi"])
    except ValueError as error:
        print(error, flush=True)
    with RewardClient(sys.argv[1], timeout_s=20) as own:
        print(own.score(["Hi"]).rewards, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(client.score(["Hi"]).rewards)
"""


def test_a_fork_is_noticed(fake: FakeServer) -> None:
    command = [sys.executable, "-c", IN_A_FORK, fake.url]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    first, *others = done.stdout.splitlines()
    assert "make one in each process, after the fork" in first
    assert others == ["[172.5]", "[172.5]"]


LARGE_CALL = """
import sys
from reward_client import RewardClient
with RewardClient(sys.argv[1], timeout_s=600) as client:
    print("begins", flush=True)
    try:
        client.score(["Hi"] * int(sys.argv[2]))
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.mark.parametrize("n_rows", [1, 400])
def test_ctrl_c_ends_a_call(n_rows: int) -> None:
    let_go = multiprocessing.get_context("spawn").Event()

    def rewards(ids: "object") -> "object":
        let_go.wait()
        return ids[:, 0]

    with FakeServer(rewards, max_batch_rows=4) as fake:
        command = [sys.executable, "-c", LARGE_CALL, fake.url, str(n_rows)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "begins\n"
            while not fake.requests:
                os.sched_yield()
            process.send_signal(signal.SIGINT)
            try:  # the server answers nothing before that
                assert process.communicate(timeout=60)[0] == "interrupted\n"
            finally:
                process.kill()
                let_go.set()


IN_GRPC = """
import sys
import grpc._channel
from reward_client import RewardClient
begin = grpc._channel._run_channel_spin_thread
def interrupted(state):
    grpc._channel._run_channel_spin_thread = begin
    raise KeyboardInterrupt
with RewardClient(sys.argv[1], timeout_s=20) as client:
    client.score(["Hi"])
    grpc._channel._run_channel_spin_thread = interrupted
    try:
        client.score(["Hi"] * 40)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    print(len(client.score(["Hi"] * 40).rewards), flush=True)
"""


def test_ctrl_c_while_a_request_is_begun_leaves_a_client_that_works(fake: FakeServer) -> None:
    """gRPC would wait forever for a request that it has recorded but never sent."""
    command = [sys.executable, "-c", IN_GRPC, fake.url]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=HUNG_S)
    assert done.stdout.splitlines() == ["interrupted", "40"]


def test_a_second_event_loop_is_refused_in_one_line(fake: FakeServer) -> None:
    client = AsyncRewardClient(fake.url)
    asyncio.run(client.connect())
    with pytest.raises(ValueError, match="one in each event loop") as caught:
        asyncio.run(client.connect())
    assert "\n" not in str(caught.value)


GEVENT = """
from gevent import monkey
monkey.patch_all()
import grpc.experimental.gevent
grpc.experimental.gevent.init_gevent()
import gevent, sys
from reward_client import RewardClient
with RewardClient([sys.argv[1], sys.argv[2]], timeout_s=60) as client:
    jobs = [gevent.spawn(client.score, ["Hi"] * n) for n in (1, 9, 2, 30)]
    gevent.joinall(jobs, raise_error=True)
    print([len(job.value.rewards) for job in jobs])
"""


def test_greenlets_of_gevent(fake: FakeServer) -> None:
    pytest.importorskip("gevent", reason="needs gevent")
    with FakeServer(lambda ids: ids[:, 0]) as other:
        command = [sys.executable, "-W", "ignore", "-c", GEVENT, fake.url, other.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "[1, 9, 2, 30]\n", done.stderr


def test_all_errors_are_exported() -> None:
    names = {kind.__name__ for kind in kinds(ServerError)}
    assert names <= set(reward_client.__all__)
