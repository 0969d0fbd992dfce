"""Gives a published version another calibration; its rewards and the hashes of its files stay."""

import json
from dataclasses import replace
from pathlib import Path

from reward_contract import MODEL_NAME
from reward_contract.facts import MANIFEST_NAME, Facts
from reward_export.configuration import CONFIG_NAME, show
from reward_export.errors import PublishError
from reward_export.repository import ModelFolder
from reward_export.staging import one_at_a_time
from reward_text import Calibration, Usage

ROOM_BYTES = 1 << 20  # for a manifest and a configuration


def recalibrate(
    repository: Path,
    version: int,
    calibration: Calibration,
    *,
    identity: str | None = None,
    name: str = MODEL_NAME,
) -> Path:
    """Write a calibration into a version's manifest, and into what servers show of it.

    Each of the two files is replaced whole. A server that polls loads the model again when it
    sees the configuration change, without a failed call; others show it after their next start.

    Args:
        repository: the model repository.
        version: the version's number.
        calibration: the new calibration.
        identity: the identity that the version has to have; any if None.
        name: the model's name.

    Returns:
        The version's folder.

    Raises:
        PublishError: there is no such version, it is another model, or it cannot be written.
    """
    folder = ModelFolder(repository, name)
    path = folder.path / str(version)
    with folder.staging(needed_bytes=ROOM_BYTES) as scratch, one_at_a_time(folder.path):
        manifest, facts = _read(path, calibration)
        if identity is not None and facts.identity != identity:
            raise PublishError(
                f"{path} is not the model that was asked: its sha256 is "
                f"{facts.identity}, the server's is {identity}"
            )
        part = scratch / MANIFEST_NAME
        part.write_text(json.dumps(manifest | facts.as_json(), indent=2) + "\n", "utf-8")
        part.chmod(0o644)  # whatever the umask: another user may serve it
        kept = [*folder.taken_numbers()]
        part.replace(path / MANIFEST_NAME)
        show(folder.path / CONFIG_NAME, version, facts, kept=kept, scratch=scratch)
    return path


def _read(path: Path, calibration: Calibration) -> tuple[dict[str, object], Facts]:
    """The manifest of a version, and its facts with the calibration."""
    try:
        text = (path / MANIFEST_NAME).read_text("utf-8")
        facts = Facts.from_json(text)
        usage = replace(Usage.from_json(facts.usage), calibration=calibration)
    except OSError as error:
        raise PublishError(f"cannot read {path / MANIFEST_NAME}: {error.strerror}") from error
    except ValueError as error:
        raise PublishError(f"{path / MANIFEST_NAME}: {error}") from error
    manifest: dict[str, object] = json.loads(text)
    manifest.pop("calibration", None)
    return manifest, Facts(
        golden=facts.golden,
        sha256=facts.sha256,
        usage=usage.as_json(),
        source=facts.source,
        revision=facts.revision,
        precision=facts.precision,
    )
