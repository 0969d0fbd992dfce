"""Shows tritonserver what to serve: links to the sound versions of the models of a repository.

Triton fails on anything unknown next to the models (`lost+found`, `.snapshot`), its Python backend
on a space in a path, and a server that starts loads only the newest version, even a broken one. So
the launcher shows Triton a separate folder: the configuration of each model, and a link for each
version whose files are as they were exported and that has not just failed.
"""

import os
import re
import shutil
from collections.abc import Container, Iterator
from pathlib import Path

from reward_serve.quarantine import Quarantine, Version

CONFIG_NAME = "config.pbtxt"
GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))  # the second under WSL
_MAX_BATCH = re.compile(r"^max_batch_size: (\d+)", re.MULTILINE)
_CPU_MAX_BATCH = re.compile(r'key: "cpu_max_batch_size" value: \{ string_value: "(\d+)" \}')


class View:
    """A folder that shows a model repository to tritonserver.

    Args:
        repository: the model repository.
        folder: where to show it; created here, removed by the caller.
        quarantine: versions that are left out.
        only: names of the models to show; all if empty.
    """

    def __init__(
        self, repository: Path, folder: Path, quarantine: Quarantine, only: Container[str] = ()
    ) -> None:
        self.repository = repository.resolve()
        self.folder = folder
        self.quarantine = quarantine
        self._only = only

    def sync(self) -> list[Version]:
        """Show what the repository has now, and return the versions that are shown.

        Configurations are written before versions are linked: a server that polls finds both.

        Raises:
            OSError: the repository changed during the call; call again.
        """
        self.folder.mkdir(exist_ok=True)
        models = {path.name: path for path in models_of(self.repository, self._only)}
        versions = dict(pair for path in models.values() for pair in versions_of(path))
        self.quarantine.keep_only({*versions})
        shown = [v for v, path in versions.items() if self.quarantine.admits(v, path)]
        for gone in {path.name for path in self.folder.iterdir()} - models.keys():
            shutil.rmtree(self.folder / gone)  # links, and a configuration
        for name, path in models.items():
            numbers = {str(version.number) for version in shown if version.model == name}
            # Triton does not start with a model that has no version, but continues if one
            # loses its last
            if numbers or (self.folder / name).exists():
                self._show_model(path, self.folder / name, numbers)
        return shown

    def path_of(self, version: Version) -> Path:
        """The version's folder in the repository."""
        return self.repository / version.model / str(version.number)

    def _show_model(self, model: Path, shown: Path, numbers: set[str]) -> None:
        shown.mkdir(exist_ok=True)
        if (model / CONFIG_NAME).is_file():
            self._write_config(model / CONFIG_NAME, shown / CONFIG_NAME)
        others = {  # such as warmup/ and labels.txt
            path.name
            for path in model.iterdir()
            if not path.name.startswith(".") and not path.name.isdecimal()
        } - {CONFIG_NAME}
        for name in numbers | others:
            _link(model / name, shown / name)
        for path in shown.iterdir():
            if path.name not in numbers | others | {CONFIG_NAME}:
                path.unlink()

    def _write_config(self, config: Path, shown: Path) -> None:
        stat = config.stat()
        if shown.is_file() and shown.stat().st_mtime_ns == stat.st_mtime_ns:
            return
        text = config.read_text("utf-8")
        on_gpu = "KIND_CPU" not in text and any(path.exists() for path in GPU_DEVICES)
        # outside the folder of the models, where Triton does not look
        part = self.folder.parent / f"{config.parent.name}.{CONFIG_NAME}"
        part.write_text(text if on_gpu else for_cpu(text), "utf-8")
        os.utime(part, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        part.replace(shown)


def for_cpu(config: str) -> str:
    """A configuration, with its `cpu_max_batch_size` as `max_batch_size` if that is smaller."""
    wanted = _CPU_MAX_BATCH.search(config)
    if wanted is None:
        return config
    return _MAX_BATCH.sub(
        lambda line: f"max_batch_size: {min(int(line[1]), int(wanted[1]))}", config, count=1
    )


def models_of(repository: Path, only: Container[str] = ()) -> Iterator[Path]:
    """Folders of models: those with a configuration or a version, and no others.

    Args:
        repository: the model repository.
        only: names of the models that are wanted; all if empty.
    """
    for path in sorted(repository.iterdir()):
        if path.name.startswith(".") or not path.is_dir() or (only and path.name not in only):
            continue
        try:
            if (path / CONFIG_NAME).is_file() or any(versions_of(path)):
                yield path
        except PermissionError:  # lost+found
            continue


def versions_of(model: Path) -> Iterator[tuple[Version, Path]]:
    """The versions of a model that Triton would serve, each with its folder."""
    for path in model.iterdir():
        if path.name.isdecimal() and not path.name.startswith("0") and path.is_dir():
            yield Version(model.name, int(path.name)), path


def _link(target: Path, link: Path) -> None:
    if link.is_symlink() and link.readlink() == target:
        return
    link.unlink(missing_ok=True)
    link.symlink_to(target)
