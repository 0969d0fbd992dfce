"""`gpt2-reward verify` on the real server, on damaged files, and on a server that lies."""

import re
import shutil
from pathlib import Path

import pytest

from reward_client.cli import main
from reward_contract import MODEL_NAME
from reward_contract.facts import MANIFEST_NAME, Facts, parameter_of
from reward_serve.errors import RepositoryError
from reward_serve.server import ServerOptions, TritonServer


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    """The model's folder in a repository of the test's own."""
    shutil.copytree(repository, tmp_path / "repository")
    return tmp_path / "repository" / MODEL_NAME


def serve(model: Path) -> TritonServer:
    return TritonServer(ServerOptions(model.parent, grpc_port=0, http_port=0, metrics_port=0))


def damage_weights(model: Path, number: int = 1) -> None:
    weights = model / str(number) / "model.onnx.data"
    with weights.open("r+b") as file:
        file.seek(weights.stat().st_size // 2)
        file.write(b"\xff" * 4096)


def falsify(model: Path, by: float) -> None:
    """Change a golden reward in the configuration that the server shows."""
    config = model / "config.pbtxt"
    line = next(line for line in config.read_text().splitlines() if parameter_of(1) in line)
    facts = Facts.from_json(re.search(r"string_value: '(.*)' \}", line)[1])
    first = facts.golden.rewards[0]
    text = config.read_text().replace(f'"rewards":[{first!r}', f'"rewards":[{first + by!r}')
    assert text != config.read_text()
    config.write_text(text)


def test_a_sound_server_is_verified_over_the_network_alone(
    server: TritonServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", f"--url={server.grpc_url}"]) == 0
    heading, *rows = capsys.readouterr().out.splitlines()
    assert "PyTorch's" in heading
    assert [line.split()[:2] for line in rows] == [["1", str(n)] for n in (0, 8, 40, 120, 256)]


def test_a_reward_that_is_not_pytorchs_is_wrong(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    falsify(copy, 0.01)
    with serve(copy) as server:
        assert main(["verify", f"--url={server.grpc_url}"]) == 1
    told = capsys.readouterr()
    assert told.out.count("WRONG") == 1
    assert "version 1: a row of 0 tokens is wrong" in told.err


def test_a_server_that_shows_no_golden_rows_is_compared_with_the_repository(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = copy / "config.pbtxt"
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if parameter_of(1) not in line))
    with serve(copy) as server:
        assert main(["verify", f"--url={server.grpc_url}"]) == 1
        assert "shows no golden rows of version 1" in capsys.readouterr().err
        words = [f"--url={server.grpc_url}", f"--repository={copy.parent}"]
        assert main(["verify", *words]) == 0


def test_a_server_that_is_away_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--url=127.0.0.1:1", "--timeout=5"]) == 1
    assert "127.0.0.1:1 did not answer: UNAVAILABLE" in capsys.readouterr().err


def test_damaged_weights_are_found_and_not_served(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", f"--repository={copy.parent}"]) == 0
    damage_weights(copy)
    assert main(["verify", f"--repository={copy.parent}"]) == 1
    assert "version 1: model.onnx.data has sha256" in capsys.readouterr().err
    with pytest.raises(RepositoryError, match=r"gpt2_reward version 1: model.onnx.data has sha256"):
        serve(copy).start()


def test_the_version_before_a_damaged_one_is_served(copy: Path) -> None:
    shutil.copytree(copy / "1", copy / "2")
    damage_weights(copy, 2)
    told: list[str] = []
    server = TritonServer(serve(copy).options, tell=told.append)
    with server:
        assert server.control.state(MODEL_NAME, 1) == "READY"
    assert told[0].startswith("gpt2_reward version 2 is not served: model.onnx.data has sha256")


def test_a_version_without_a_manifest_is_served_as_it_is(copy: Path) -> None:
    (copy / "1" / MANIFEST_NAME).unlink()
    with serve(copy) as server:
        assert server.models.golden(MODEL_NAME) is None
        assert server.control.state(MODEL_NAME, 1) == "READY"
