"""The model's folder: versions appear whole, are never replaced, and can be withdrawn."""

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reward_client.cli import main
from reward_contract import MODEL_NAME
from reward_export import repository, staging
from reward_export.errors import PublishError, VersionTakenError
from reward_export.export import ExportOptions, export
from reward_export.repository import ModelFolder

CONFIG = Path(__file__).parents[2] / "model_repository" / MODEL_NAME / "config.pbtxt"


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    """A model's folder with its configuration, and without a version."""
    folder = ModelFolder(tmp_path / "repository")
    folder.configure()
    return folder


def contents(folder: ModelFolder) -> list[str]:
    return sorted(path.name for path in folder.path.iterdir())


def publish(folder: ModelFolder, text: str, version: int | None = None) -> Path:
    with folder.staging(needed_bytes=1) as staged:
        (staged / "model.onnx").write_text(text)
        return folder.publish(staged, version)


def test_a_missing_configuration_is_written_and_one_that_is_there_is_kept(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path / "repository")
    mask = os.umask(0o077)
    try:
        assert folder.configure() == folder.path / "config.pbtxt"
    finally:
        os.umask(mask)
    assert (folder.path / "config.pbtxt").read_bytes() == CONFIG.read_bytes()
    modes = [path.stat().st_mode & 0o777 for path in (folder.repository, folder.path)]
    assert modes == [0o755, 0o755], "another user may serve it"
    assert (folder.path / "config.pbtxt").stat().st_mode & 0o777 == 0o644
    assert contents(folder) == ["config.pbtxt"]
    (folder.path / "config.pbtxt").write_text("theirs")
    assert folder.configure() is None
    assert (folder.path / "config.pbtxt").read_text() == "theirs"


def test_a_configuration_that_cannot_be_written_leaves_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: Path, _mode: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = ModelFolder(tmp_path)
    folder.path.mkdir()
    monkeypatch.setattr(Path, "chmod", full)
    with pytest.raises(PublishError, match=r"config\.pbtxt: No space left on device"):
        folder.configure()
    assert contents(folder) == []


def test_the_export_makes_a_missing_repository_and_says_so(
    checkpoint_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = tmp_path / "models"
    assert main(["export", str(checkpoint_folder), f"--repository={repository}"]) == 0
    streams = capsys.readouterr()
    assert streams.out == f"{repository / MODEL_NAME / '1'}\n"
    assert f"wrote {repository / MODEL_NAME / 'config.pbtxt'}, which was missing\n" in streams.err


def test_a_repository_needs_a_folder_to_be_made_in(tmp_path: Path) -> None:
    nowhere = tmp_path / "no" / "where"
    with pytest.raises(PublishError, match=f"there is no folder {nowhere.parent} to make the"):
        export(ExportOptions("unread", nowhere), print)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_is_not_there_leaves_no_repository(tmp_path: Path) -> None:
    assert main(["export", str(tmp_path / "none"), f"--repository={tmp_path / 'models'}"]) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_repository_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    with pytest.raises(PublishError, match=r"cannot write .*config\.pbtxt: "):
        ModelFolder(tmp_path / "models").configure()


@pytest.mark.parametrize("version", [0, -1])
def test_versions_begin_at_1(folder: ModelFolder, version: int) -> None:
    with pytest.raises(PublishError, match="versions begin at 1"):
        export(ExportOptions("unread", folder.repository, version=version), print)


def test_a_version_is_never_replaced(folder: ModelFolder) -> None:
    publish(folder, "precious", 3)
    with pytest.raises(VersionTakenError, match="version 3 exists in"):
        export(ExportOptions("unread", folder.repository, version=3), print)
    with pytest.raises(VersionTakenError, match="version 3 exists in"):
        publish(folder, "other", 3)
    assert (folder.path / "3" / "model.onnx").read_text() == "precious"
    assert contents(folder) == ["3", "config.pbtxt"]


def test_published_files_can_be_read_by_the_servers_user(folder: ModelFolder) -> None:
    with folder.staging(needed_bytes=1) as staged:
        (staged / "model.onnx").write_text("private")
        (staged / "model.onnx").chmod(0o600)
        path = folder.publish(staged)
    assert (path / "model.onnx").stat().st_mode & 0o777 == 0o644


def test_many_that_publish_at_once_take_a_number_each(folder: ModelFolder) -> None:
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda text: publish(folder, text), map(str, range(40))))
    assert sorted(int(path.name) for path in paths) == list(range(1, 41))
    assert [(path / "model.onnx").read_text() for path in paths] == list(map(str, range(40)))


def test_of_those_that_want_one_number_at_once_one_has_it(folder: ModelFolder) -> None:
    def publish_second(text: str) -> str | None:
        with contextlib.suppress(VersionTakenError):
            publish(folder, text, 2)
            return text
        return None

    with ThreadPoolExecutor(8) as pool:
        winners = [text for text in pool.map(publish_second, map(str, range(40))) if text]
    assert [(folder.path / "2" / "model.onnx").read_text()] == winners
    assert contents(folder) == ["2", "config.pbtxt"]


def test_a_withdrawn_version_is_hidden_kept_and_its_number_stays_taken(
    folder: ModelFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 3):
        publish(folder, str(number), number)
    rollback = ["rollback", f"--repository={folder.repository}"]
    assert main(rollback) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{folder.path / '1'}\n"
    assert f"to undo it: mv {folder.path / '.withdrawn-3'} {folder.path / '3'}" in captured.err
    assert (folder.path / ".withdrawn-3" / "model.onnx").read_text() == "3"
    assert folder.versions() == [1]
    assert main(rollback) == 1
    assert "has no version before 1" in capsys.readouterr().err
    with pytest.raises(VersionTakenError, match="version 3 was withdrawn from"):
        publish(folder, "other", 3)
    assert publish(folder, "next").name == "4"


def test_without_a_repository_there_is_nothing_to_withdraw(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="has no version before the first"):
        ModelFolder(tmp_path / "nowhere").withdraw()


def test_a_version_is_staged_beside_the_repository_unless_that_is_another_volume(
    folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with folder.staging(needed_bytes=1) as staged:
        assert staged.parent == folder.repository.parent
    monkeypatch.setattr(repository, "_mount_points", lambda: {str(folder.repository)})
    with folder.staging(needed_bytes=1) as staged:
        assert staged.parent == folder.path


@contextlib.contextmanager
def another_export(folder: ModelFolder) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that is writing a version, and the folder that it writes to."""
    code = (
        "import pathlib, sys\n"
        "from reward_export.repository import ModelFolder\n"
        "with ModelFolder(pathlib.Path(sys.argv[1])).staging(needed_bytes=1) as staged:\n"
        "    (staged / 'model.onnx').write_text('half of it')\n"
        "    print(staged, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(folder.repository)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_what_a_killed_export_left_is_removed_by_the_next(folder: ModelFolder) -> None:
    with another_export(folder) as (process, left):
        process.kill()
        process.wait()
    assert (left / "model.onnx").is_file()
    assert publish(folder, "whole").name == "1"
    assert not left.exists()


def test_what_an_export_is_writing_is_left_alone(folder: ModelFolder) -> None:
    with another_export(folder) as (process, writing):
        assert publish(folder, "ours").name == "1"
        assert (writing / "model.onnx").read_text() == "half of it"
        process.communicate()
    assert process.returncode == 0
    assert not writing.exists(), "it ended as it should, and removed its own"


def test_folders_of_other_programs_are_left_alone(folder: ModelFolder) -> None:
    theirs = folder.repository.parent / ".staging-theirs"
    theirs.mkdir()
    publish(folder, "ours")
    assert theirs.is_dir()


def test_a_sweep_between_making_and_locking_a_folder_is_survived(
    folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, swept = staging._lock, []

    def sweep_before(path: Path) -> int:
        if not swept:
            swept.append(path)
            staging.sweep(path.parent)
            assert not path.exists()
        return real(path)

    monkeypatch.setattr(staging, "_lock", sweep_before)
    assert (publish(folder, "whole") / "model.onnx").read_text() == "whole"
    assert swept


def test_without_locks_versions_are_published_and_nothing_is_swept(
    folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_arguments: object) -> None:
        raise OSError

    left = folder.repository.parent / f"{staging.PREFIX}left"
    left.mkdir()
    monkeypatch.setattr(staging.fcntl, "flock", no_locks)
    assert publish(folder, "whole").name == "1"
    assert left.is_dir()
