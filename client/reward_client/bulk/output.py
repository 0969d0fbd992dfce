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
from collections.abc import Sequence
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
        version: of the model that answered so far; None before the first.

    Raises:
        OutputError: they cannot be written, belong to something else, or are in use.
    """

    def __init__(self, job: Job, identity: Identity) -> None:
        self._path = job.output
        self._meta = job.meta
        self._identity = identity
        self.n_done = 0
        self.n_rejected = 0
        self.version: int | None = None
        with ExitStack() as files:
            self._open(files, job, identity)
            self._files = files.pop_all()

    def _open(self, files: ExitStack, job: Job, identity: Identity) -> None:
        try:
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
            self._identity = identity.check(job)
            self.n_done, self.version = _cut_to_whole_lines(self._rewards, job.working)
            if self.version is None:  # a torn line alone: no model has answered yet
                self._identity = identity
        elif job.to_parquet and job.output.exists():
            raise OutputError(f"{job.output} is there already; remove it to score again")
        self._identity.write(job.meta)

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
        try:
            if model is not None:
                self._check_model(model)
            _write(self._rejected, [_rejection_line(one) for one in rejections])
            _write(self._rewards, [_reward_line(one, self.version) for one in rewarded])
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

    def _check_model(self, model: ModelInfo) -> None:
        """Refuse another model's rewards; of the first one, note which it is."""
        if self.version not in {None, model.version}:
            raise OutputError(
                f"{self._path} has rewards of version {self.version} of the model, and now version "
                f"{model.version} answers; rewards of different versions do not compare: go on "
                f"with --model-version {self.version}, or take another output"
            )
        self.version, known = model.version, self._identity.model
        if model.identity is None or model.identity == known:
            return
        if known is not None:
            raise OutputError(
                f"{self._path} has rewards of the model with sha256 {known}, and now another model "
                f"answers as version {model.version}: {model.identity}; their rewards are not "
                "comparable: ask the server of the first one, or take another output"
            )
        self._identity = replace(self._identity, model=model.identity)
        self._identity.write(self._meta)  # before the first reward


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


def _reward_line(one: Rewarded, version: int | None) -> bytes:
    # nine digits bring every float32 back as it was
    numbers = [float(f"{reward:.9g}") for reward in one.rewards]
    answer = {"rewards": numbers} if one.line.is_group else {"reward": numbers[0]}
    line = {"line": one.line.number, **one.line.copied, **answer, "model_version": version}
    return json.dumps(line).encode() + b"\n"
