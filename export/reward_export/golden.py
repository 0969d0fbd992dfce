"""Golden rows: a few real rows with PyTorch's rewards, by which a server is trusted later.

The exporter compares on the machine that exports. What serves may be another processor, another
provider or another ONNX Runtime, and the files may have been damaged on their way: a server that
gives these rows these rewards computes the model that was exported.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reward_contract import CONTRACT
from reward_contract.facts import Facts, Golden, parameter_of
from reward_export.checkpoint import Checkpoint
from reward_export.conversations import conversations
from reward_text import Tokenizer

LENGTHS = (8, 40, 120, CONTRACT.max_tokens)
"""Tokens of the golden rows besides the empty one: short for heartbeats, full to reach it all."""

_LINE = re.compile(r'^parameters \{ key: "version\.(\d+)" .*\n', re.MULTILINE)


def golden_rows() -> list[NDArray[np.int32]]:
    """The rows: the empty text, and ends of real conversations, `LENGTHS` long. -> int32 [S]."""
    tokenizer = Tokenizer()
    texts = ["\n".join(dialogue.turns) for dialogue in conversations()]
    long = [row for row in map(tokenizer.encode, texts) if len(row) == CONTRACT.max_tokens]
    return [np.zeros(0, np.int32), *(row[-n:] for n, row in zip(LENGTHS, long, strict=False))]


def golden(checkpoint: Checkpoint, tolerance: float) -> Golden:
    """The golden rows with the checkpoint's own rewards.

    Args:
        checkpoint: computes them in PyTorch, float32.
        tolerance: largest difference that a server is held to.
    """
    rows = golden_rows()
    ids = np.full((len(rows), CONTRACT.max_tokens), CONTRACT.pad_token_id, np.int32)
    for row, found in zip(ids, rows, strict=True):
        row[: len(found)] = found
    rewards = checkpoint.rewards(ids)[:, 0]
    return Golden(
        tuple(tuple(map(int, row)) for row in rows), tuple(map(float, rewards)), float(tolerance)
    )


@contextlib.contextmanager
def one_publisher(folder: Path) -> Iterator[None]:
    """Wait until no other export publishes into the model's folder, and keep others waiting."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # network file systems that lock no folders
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def show(config: Path, version: int, facts: Facts, *, kept: list[int], scratch: Path) -> None:
    """Write a version's facts into the model's configuration, where clients of a server see them.

    To be done before the version is renamed into place: a server that polls then finds both at
    the same look, and loads the version once. In between, nothing reads the new parameter.

    Args:
        config: the model's `config.pbtxt`; all but the versions' lines is kept as it is.
        version: the number that the version will have.
        facts: what to show.
        kept: versions whose lines stay; of others, which are gone, they are removed.
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
