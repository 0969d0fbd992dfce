"""The launcher's own port, and how a heartbeat judges answers."""

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from reward_contract import MODEL_NAME
from reward_contract.facts import Golden
from reward_serve.control import Control, RefusedError, greets
from reward_serve.health import MAX_CONNECTIONS, N_RECENT, Health, HealthPort
from reward_serve.heartbeat import Heartbeat, Pulse
from reward_serve.server import TritonServer

PATIENCE = Pulse(every_s=5, timeout_s=20)


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def port(health: Health) -> Iterator[HealthPort]:
    with HealthPort(health, "127.0.0.1", 0) as port:
        yield port


def get(port: HealthPort, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"{port.url}{path}") as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_port_tells_what_is_known(health: Health, port: HealthPort) -> None:
    assert get(port, "/ready") == (503, "starting\n")
    health.mark_ready()
    assert get(port, "/ready") == (200, "ready\n")
    health.mark_miss("silent", "no answer")
    health.count_restart("heartbeat")
    assert get(port, "/ready") == (503, "no answer\n")
    assert get(port, "/live") == (200, "live\n")
    page = get(port, "/metrics")[1]
    assert "\ngpt2_reward_ready 0\n" in page
    assert '\ngpt2_reward_heartbeat_failures_total{reason="silent"} 1\n' in page
    assert '\ngpt2_reward_restarts_total{reason="heartbeat"} 1\n' in page
    assert get(port, "/elsewhere")[0] == 404


def test_misses_are_counted_although_another_instance_answers_in_between(health: Health) -> None:
    health.mark_ready()
    for _ in range(3):
        health.mark_miss("silent", "no answer")
        health.mark_alive(0.1)
    assert health.is_ready
    assert (health.misses, health.miss) == (3, "no answer")
    for _ in range(N_RECENT):
        health.mark_alive(0.1)
    assert health.misses == 0


def test_misses_of_a_server_that_has_ended_do_not_count(health: Health) -> None:
    health.mark_miss("silent", "no answer")
    health.mark_away("starting again")
    assert health.misses == 0


def test_connections_that_say_nothing_do_not_shut_probes_out(port: HealthPort) -> None:
    host, number = port.url.removeprefix("http://").split(":")
    idle = [socket.create_connection((host, int(number))) for _ in range(2 * MAX_CONNECTIONS)]
    assert get(port, "/live") == (200, "live\n")
    for connection in idle:
        connection.close()


@dataclass
class Known:
    """What a heartbeat knows about the served models."""

    rows: Golden | None
    names: tuple[str, ...] = (MODEL_NAME,)
    withheld: tuple[str, ...] = ()

    def golden(self, _model: str, _number: int | None = None) -> Golden | None:
        return self.rows


def heartbeat(server: TritonServer, health: Health, golden: Golden | None) -> Heartbeat:
    return Heartbeat(server.control, Known(golden), server.takes_connections, PATIENCE, health)


def test_right_rewards_are_a_good_heartbeat(server: TritonServer, health: Health) -> None:
    heartbeat(server, health, server.models.golden(MODEL_NAME)).beat()
    assert health.is_ready
    assert health.beat_s > 0


def test_a_wrong_reward_is_told_with_all_numbers(server: TritonServer, health: Health) -> None:
    golden = server.models.golden(MODEL_NAME, 1)
    lying = Golden(golden.rows, tuple(reward + 1 for reward in golden.rewards), golden.tolerance)
    heartbeat(server, health, lying).beat()
    assert health.reason.startswith("golden row 0 of gpt2_reward version 1 got")
    assert f"PyTorch gives {lying.rewards[0]:.6g}, with a tolerance of 0.0001" in health.reason
    assert health.failures == {"wrong": 1}


def test_a_version_without_golden_rows_is_not_asked(server: TritonServer, health: Health) -> None:
    health.mark_ready()
    heartbeat(server, health, None).beat()
    assert health.is_ready


def test_a_model_that_was_published_a_moment_ago_is_no_miss(
    server: TritonServer, health: Health
) -> None:
    known = Known(server.models.golden(MODEL_NAME))
    beat = Heartbeat(server.control, known, server.takes_connections, PATIENCE, health)
    known.names = (MODEL_NAME, "new")  # which Triton has yet to load
    beat.beat()
    assert health.is_ready
    assert health.models == {MODEL_NAME: True, "new": False}


def test_a_model_whose_versions_are_all_put_away_is_not_ready(
    server: TritonServer, health: Health
) -> None:
    known = Known(server.models.golden(MODEL_NAME), withheld=("damaged",))
    Heartbeat(server.control, known, server.takes_connections, PATIENCE, health).beat()
    assert health.is_ready
    assert health.models == {"damaged": False, MODEL_NAME: True}
    assert 'gpt2_reward_model_ready{model="damaged"} 0' in health.metrics()


class Loaded:
    """What a heartbeat uses of `Control`: the models that are loaded answer all rows with 0."""

    def __init__(self, *names: str) -> None:
        self.names = {*names}

    def is_ready(self, path: str) -> bool:
        return path.split("/")[1] in self.names

    def n_executions(self, _model: str) -> int:
        return 0

    def reward(self, model: str, _row: tuple[int, ...], *, timeout_s: float) -> tuple[float, int]:
        if model not in self.names:
            raise RefusedError(f"{model} is not found", status=400)
        return 0.0 * timeout_s, 1


def test_a_model_that_loses_its_only_version_is_not_ready_until_it_is_loaded_again(
    health: Health,
) -> None:
    known = Known(Golden(((1,),), (0.0,), 0.1), ("retry", MODEL_NAME))
    control = Loaded("retry", MODEL_NAME)
    beat = Heartbeat(control, known, lambda: True, PATIENCE, health)
    beat.beat()
    assert health.models == {MODEL_NAME: True, "retry": True}
    known.names, known.withheld = (MODEL_NAME,), ("retry",)  # its files were damaged
    control.names.remove("retry")  # Triton follows
    beat.beat()
    assert health.models == {MODEL_NAME: True, "retry": False}
    known.names, known.withheld = ("retry", MODEL_NAME), ()  # published again
    beat.beat()
    assert (health.is_ready, health.failures) == (True, {}), "it has yet to be loaded"
    assert health.models == {MODEL_NAME: True, "retry": False}
    control.names.add("retry")
    beat.beat()
    assert health.models == {MODEL_NAME: True, "retry": True}


def test_the_only_model_that_loses_its_only_version_is_not_ready(health: Health) -> None:
    known = Known(Golden(((1,),), (0.0,), 0.1))
    beat = Heartbeat(Loaded(MODEL_NAME), known, lambda: True, PATIENCE, health)
    beat.beat()
    known.names, known.withheld = (), (MODEL_NAME,)
    beat.beat()
    assert health.models == {MODEL_NAME: False}


def test_a_server_that_is_away_is_silent(server: TritonServer, health: Health) -> None:
    golden = server.models.golden(MODEL_NAME)
    with socket.create_server(("127.0.0.1", 0)) as unanswering:
        port = unanswering.getsockname()[1]
        away = Heartbeat(
            Control(f"http://127.0.0.1:{port}"),
            Known(golden),
            lambda: False,
            Pulse(timeout_s=0.2),
            health,
        )
        away.beat()
        assert health.failures == {"silent": 1}
        assert "not answered in 0.2 s" in health.reason


def test_a_port_greets_if_it_speaks_http_2(server: TritonServer) -> None:
    assert server.takes_connections()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        threading.Thread(target=lambda: other.accept()[0].close()).start()  # noqa: PLW0108  # later
        assert not greets("127.0.0.1", port, tls=False, timeout_s=5)
    assert not greets("127.0.0.1", port, tls=False, timeout_s=5), "nothing listens"
