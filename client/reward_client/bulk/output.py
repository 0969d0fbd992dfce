"""Writing the output, and going on with one.

The output is its own journal: its last complete line says which input lines are done. What
was written of the next line before a kill is cut off. Rejections are written before the rewards
of the lines around them, so that none is missing of the lines done; those of later lines are
cut off too, and found again.
"""

import fcntl
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from reward_client.bulk.errors import OutputError
from reward_client.bulk.identity import Identity
from reward_client.bulk.job import Job
from reward_client.bulk.lines import Line, Rejection
from reward_client.results import ModelInfo

_BLOCK = 1 << 16
_BEGIN = b'{"line": '  # of a rejection
_NOT_OURS = "{} has lines that no run of ours has written; move it away, or take another output"


@dataclass(frozen=True, slots=True)
class Rewarded:
    """A line with its rewards, one for each candidate."""

    line: Line
    rewards: Sequence[float]


class Output:
    """The files of a job, open at the place where it goes on.

    Args:
        job: says which files.
        identity: of what would be written now.

    Attributes:
        n_done: input lines that are accounted for.
        n_rejected: lines that are listed as rejected, those of earlier runs included.
        model: that answered so far, as far as its output tells; None before the first.
        identity: as given, with the model's identity once that is known.

    Raises:
        OutputError: they cannot be written, belong to something else, or are in use.
    """

    def __init__(self, job: Job, identity: Identity) -> None:
        self._path = job.output
        self._meta = job.meta
        self.identity = identity
        self.n_done = 0
        self.n_rejected = 0
        self.model: ModelInfo | None = None
        with ExitStack() as files:
            self._open(files, job, identity)
            self._files = files.pop_all()

    def _open(self, files: ExitStack, job: Job, identity: Identity) -> None:
        try:
            if job.side:  # of a data set whose folders are ours to make
                job.output.parent.mkdir(parents=True, exist_ok=True)
                job.side.mkdir(parents=True, exist_ok=True)
            self._rewards = files.enter_context(_locked(job.working))
            self._check_rejected(job)
            self._go_on(job, identity)
            self._rejected = files.enter_context(io.FileIO(job.rejected, "a+"))
            self.n_rejected = _cut_after(self._rejected, self.n_done, job.rejected)
        except OSError as error:
            raise OutputError(f"cannot write {job.output}: {error.strerror or error}") from error

    def _check_rejected(self, job: Job) -> None:
        """Only a run of ours leaves both the list of rejected lines and the file that says so."""
        is_ours = job.meta.exists() or not job.rejected.exists() or not job.rejected.stat().st_size
        if not is_ours:
            raise OutputError(
                f"{job.rejected} is there, but not {job.meta}, so that no run of ours has written "
                "it; move it away, or take another output"
            )

    def _go_on(self, job: Job, identity: Identity) -> None:
        if self._rewards.seek(0, os.SEEK_END):
            self.identity = identity.check(job)
            self.n_done, version = _cut_to_whole_lines(self._rewards, job.working)
            if version is None:  # a torn line alone: no model has answered yet
                self.identity = identity
            else:
                self.model = ModelInfo(version, identity=self.identity.model)
        elif job.converts and job.output.exists():
            identity.check(job)
        self.identity.write(job.meta)

    def write(
        self, rewarded: Sequence[Rewarded], rejections: Sequence[Rejection], model: ModelInfo | None
    ) -> None:
        """Add the next lines, which are on disk on return, as far as the system goes.

        Args:
            rewarded: in the order of the input.
            rejections: lines among or around them, in that order too.
            model: that gave the rewards; None where `rewarded` is empty.

        Raises:
            OutputError: the model was exchanged, or the files cannot be written.
        """
        self.model = checked_model(self.model, model, self._path)
        try:
            self._note_model()
            _write(self._rejected, [_rejection_line(one) for one in rejections])
            _write(self._rewards, [_reward_line(one, self.model) for one in rewarded])
        except OSError as error:
            raise OutputError(
                f"cannot write {self._path}: {error.strerror or error}; run the same command to go "
                "on once that is mended"
            ) from error
        self.n_rejected += len(rejections)
        if rewarded:
            self.n_done = rewarded[-1].line.number

    def close(self) -> None:
        """Let others go on."""
        self._files.close()

    def _note_model(self) -> None:
        """Say beside the output whose rewards it has, before the first of them is there."""
        if self.model and self.model.identity != self.identity.model:
            self.identity = replace(self.identity, model=self.model.identity)
            self.identity.write(self._meta)


class Printed:
    """Standard output in place of the files; nothing is resumed.

    Attributes:
        n_done: 0, as there is nothing before.
        n_rejected: lines that have been told on standard error.
        model: as `Output.model`.
    """

    def __init__(self) -> None:
        self.n_done = 0
        self.n_rejected = 0
        self.model: ModelInfo | None = None

    def write(
        self, rewarded: Sequence[Rewarded], rejections: Sequence[Rejection], model: ModelInfo | None
    ) -> None:
        """As `Output.write`; rejections go to standard error, a JSON object a line.

        Raises:
            OutputError: the model was exchanged.
            BrokenPipeError: nobody reads the output any more.
        """
        self.model = checked_model(self.model, model, "standard output")
        sys.stderr.write(b"".join(map(_rejection_line, rejections)).decode())
        sys.stdout.buffer.write(b"".join(_reward_line(one, self.model) for one in rewarded))
        sys.stdout.buffer.flush()
        self.n_rejected += len(rejections)

    def close(self) -> None:
        """Nothing to let go of."""


def checked_model(
    known: ModelInfo | None, model: ModelInfo | None, where: object
) -> ModelInfo | None:
    """The model that an output has from now on.

    Raises:
        OutputError: it would have two.
    """
    if known is None or model is None:
        return known or model
    if known.version != model.version:
        raise OutputError(
            f"{where} has rewards of version {known.version} of the model, and now version "
            f"{model.version} answers; rewards of different versions are not comparable: continue "
            f"with --model-version {known.version}, or take another output"
        )
    if None not in {known.identity, model.identity} and known.identity != model.identity:
        raise OutputError(
            f"{where} has rewards of the model with sha256 {known.identity}, and now another model "
            f"answers as version {model.version}: {model.identity}; their rewards are not "
            "comparable: ask the server of the first one, or take another output"
        )
    return model if known.identity is None else known


def _locked(path: Path) -> io.FileIO:
    file = io.FileIO(path, "a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise OutputError(f"{path} is being written by another process") from error
    except OSError:
        file.close()
        raise
    return file


def _cut_to_whole_lines(file: io.FileIO, path: Path) -> tuple[int, int | None]:
    """Take a torn last line off. -> number and version of the last whole one, (0, None) if none."""
    end = _line_break_before(file, file.seek(0, os.SEEK_END)) + 1
    file.truncate(end)
    if not end:
        return 0, None
    start = _line_break_before(file, end - 1) + 1
    try:
        item = json.loads(_read(file, start, end))
        line, version = item["line"], item["model_version"]
    except (ValueError, TypeError, KeyError) as error:
        raise OutputError(f"the last line of {path} is not ours; take another output") from error
    if type(line) is not int or type(version) is not int:
        raise OutputError(f"the last line of {path} is not ours; take another output")
    return line, version


def _line_break_before(file: io.FileIO, end: int) -> int:
    """Where the last line break before `end` stands; -1 if there is none."""
    while end > 0:
        start = max(0, end - _BLOCK)
        found = _read(file, start, end).rfind(b"\n")
        if found >= 0:
            return start + found
        end = start
    return -1


def _read(file: io.FileIO, start: int, end: int) -> bytes:
    file.seek(start)
    pieces = []
    while start < end and (piece := file.read(end - start)):
        pieces.append(piece)
        start += len(piece)
    return b"".join(pieces)


def _cut_after(file: io.FileIO, n_done: int, path: Path) -> int:
    """Take off the rejections of lines that are not done yet, and a torn one. -> how many stay."""
    end = n_kept = 0
    is_kept = True
    with io.FileIO(os.dup(file.fileno())) as same, io.BufferedReader(same) as lines:
        lines.seek(0)
        for line in lines:
            if not line.endswith(b"\n"):
                if not line.startswith(_BEGIN[: len(line)]):
                    raise OutputError(_NOT_OURS.format(path))
                break
            is_kept = _line_number(line, path) <= n_done and is_kept
            if is_kept:
                end += len(line)
                n_kept += 1
    file.truncate(end)  # only now that all of it is known to be ours
    return n_kept


def _line_number(line: bytes, path: Path) -> int:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise OutputError(_NOT_OURS.format(path)) from error
    if not isinstance(found, dict) or found.keys() != {"line", "reason"}:
        raise OutputError(_NOT_OURS.format(path))
    if type(found["line"]) is not int:
        raise OutputError(_NOT_OURS.format(path))
    return found["line"]


def _write(file: io.FileIO, lines: Sequence[bytes]) -> None:
    rest = memoryview(b"".join(lines))
    while rest:
        rest = rest[file.write(rest) :]


def _rejection_line(one: Rejection) -> bytes:
    return json.dumps({"line": one.line, "reason": one.reason}).encode() + b"\n"


def _reward_line(one: Rewarded, model: ModelInfo | None) -> bytes:
    line, version = one.line, None if model is None else model.version
    return line_of(line.number, line.copied, one.rewards, version, is_group=line.is_group)


def line_of(
    number: int,
    copied: Mapping[str, object],
    rewards: Sequence[float],
    version: int | None,
    *,
    is_group: bool,
) -> bytes:
    """A line of the output."""
    # nine digits bring every float32 back as it was; Python's floats are JSON's
    numbers = ", ".join([repr(float(f"{reward:.9g}")) for reward in rewards])
    answer = f'"rewards": [{numbers}]' if is_group else f'"reward": {numbers}'
    own = f"{json.dumps(copied)[1:-1]}, " if copied else ""
    by = "null" if version is None else version
    line = f'{{"line": {number}, {own}{answer}, "model_version": {by}}}\n'
    return line.encode()
