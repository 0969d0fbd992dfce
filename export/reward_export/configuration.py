"""A model's `config.pbtxt`: the one that the project ships, and the facts in it of each version."""

import json
import os
import re
import shutil
from importlib import resources
from pathlib import Path

from reward_contract import MODEL_NAME
from reward_contract.facts import Facts, parameter_of

CONFIG_NAME = "config.pbtxt"

_LINE = re.compile(r'^parameters \{ key: "version\.(\d+)" .*\n', re.MULTILINE)


def configuration(model: str = MODEL_NAME) -> bytes:
    """The `config.pbtxt` that the project ships, for a model of this name."""
    found = resources.files("reward_export") / "data" / CONFIG_NAME
    if not found.is_file():
        # an editable install is the checkout, which has the file where Triton looks for it
        found = Path(__file__).parents[2] / "model_repository" / MODEL_NAME / CONFIG_NAME
    shipped, own = (f'\nname: "{name}"\n'.encode() for name in (MODEL_NAME, model))
    return found.read_bytes().replace(shipped, own)


def show(config: Path, version: int, facts: Facts, *, kept: list[int], scratch: Path) -> None:
    """Write a version's facts into the model's configuration, where clients of a server see them.

    Call it before the version is renamed into place: a server that polls then finds both at the
    same time, and loads the version once. In between, nothing reads the new parameter.

    Args:
        config: the model's `config.pbtxt`; all but the versions' lines is left unchanged.
        version: the number that the version will have.
        facts: what to show.
        kept: versions whose lines stay; the lines of others, which are gone, are removed.
        scratch: a folder on the same disk, for the file while it is written.
    """
    text = config.read_text("utf-8")
    stay = {*kept} - {version}
    text = _LINE.sub(lambda line: line[0] if int(line[1]) in stay else "", text)
    value = json.dumps(facts.as_json(), separators=(",", ":"))
    quoted = value.replace("\\", "\\\\").replace("'", "\\'")
    line = (
        f"parameters {{ key: \"{parameter_of(version)}\" value: {{ string_value: '{quoted}' }} }}"
    )
    part = scratch / f".{config.name}"
    part.write_text(f"{text.rstrip()}\n{line}\n", "utf-8")
    shutil.copymode(config, part)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(config)
