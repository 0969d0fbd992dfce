"""What the launcher shows Triton of a repository, and where the repository can be."""

import os
import shutil
from pathlib import Path

import pytest
from lookup import add_model, free_ports

from reward_serve.errors import HostError, PortError
from reward_serve.launch import make_folder
from reward_serve.ports import own_address
from reward_serve.quarantine import Quarantine, Version
from reward_serve.server import TritonServer
from reward_serve.view import View, for_cpu


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    add_model(tmp_path / "models", "lookup")
    return tmp_path / "models"


@pytest.fixture
def view(repository: Path, tmp_path: Path) -> View:
    return View(repository, tmp_path / "shown", Quarantine())


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_is_no_model_is_not_shown(repository: Path, view: View) -> None:
    for name in ("lost+found", ".snapshot", "..data", "notes"):
        (repository / name).mkdir()
    (repository / "README").write_text("x")
    (repository / "lookup" / ".staging-x").mkdir()
    (repository / "lookup" / "warmup").mkdir()
    assert view.sync() == [Version("lookup", 1)]
    assert names(view.folder) == {"lookup"}
    assert names(view.folder / "lookup") == {"config.pbtxt", "1", "warmup"}


def test_versions_come_and_go(repository: Path, view: View) -> None:
    view.sync()
    shutil.copytree(repository / "lookup" / "1", repository / "lookup" / "2")
    assert len(view.sync()) == 2
    assert (view.folder / "lookup" / "2" / "model.onnx").is_file()
    (repository / "lookup" / "2").rename(repository / "lookup" / ".withdrawn-2")
    assert view.sync() == [Version("lookup", 1)]
    assert names(view.folder / "lookup") == {"config.pbtxt", "1"}
    shutil.rmtree(repository / "lookup")
    assert view.sync() == []
    assert names(view.folder) == set()


def test_a_configuration_keeps_its_time_and_is_written_when_it_changes(
    repository: Path, view: View
) -> None:
    view.sync()
    own, shown = repository / "lookup" / "config.pbtxt", view.folder / "lookup" / "config.pbtxt"
    assert shown.stat().st_mtime_ns == own.stat().st_mtime_ns
    inode = shown.stat().st_ino
    view.sync()
    assert shown.stat().st_ino == inode, "Triton would load the model again"
    own.write_text(own.read_text() + "# changed\n")
    view.sync()
    assert shown.read_text().endswith("# changed\n")


def test_what_was_put_away_comes_back_when_its_files_change(view: View) -> None:
    view.sync()
    version = Version("lookup", 1)
    view.quarantine.put(version, view.path_of(version), "it failed")
    assert view.sync() == []
    assert not (view.folder / "lookup" / "1").exists()
    os.utime(view.path_of(version) / "model.onnx", ns=(1, 1))
    assert view.sync() == [version]
    assert view.quarantine.reasons == {}


def test_the_smaller_batch_is_taken_on_cpus() -> None:
    named = 'parameters { key: "cpu_max_batch_size" value: { string_value: "16" } }\n'
    assert for_cpu(f"max_batch_size: 128\n{named}").startswith("max_batch_size: 16\n")
    assert for_cpu(f"max_batch_size: 4\n{named}").startswith("max_batch_size: 4\n")
    assert for_cpu("max_batch_size: 128\n") == "max_batch_size: 128\n"


@pytest.mark.parametrize("name", ["with a space", "größe", "a'b"])
def test_a_repository_can_have_any_path(repository: Path, name: str) -> None:
    renamed = repository.rename(repository.with_name(name))
    (renamed / "lost+found").mkdir()
    with TritonServer(free_ports(renamed)) as server:
        assert server.control.state("lookup", 1) == "READY"


def test_a_temporary_folder_with_a_space_is_gone_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a b").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "a b"))
    folder = make_folder()
    assert " " not in str(folder)
    folder.rmdir()
    monkeypatch.setattr("reward_serve.launch.FOLDERS", ())
    with pytest.raises(HostError, match="set TMPDIR to a folder"):
        make_folder()


def test_a_name_of_this_machine_becomes_an_address() -> None:
    assert own_address("localhost") == "127.0.0.1"
    assert own_address("0.0.0.0") == "0.0.0.0"  # noqa: S104
    for host in ("::1", "::", "no-such-host.invalid"):
        with pytest.raises(PortError, match="IPv4 address"):
            own_address(host)
