"""Writing the output, and continuing one.

The output is its own journal: its last complete line says which input lines are done. An
incomplete line after it, left by a kill, is cut off. Rejections are written before the rewards
of the lines around them, so none is missing among the lines done; those of later lines are cut
off, too, and found again.
"""

import fcntl
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from json.encoder import encode_basestring_ascii
from pathlib import Path

from reward_client.bulk.errors import OutputError
from reward_client.bulk.identity import Identity
from reward_client.bulk.job import Job
from reward_client.bulk.lines import Line, Rejection
from reward_client.results import ModelInfo
from reward_text import Usage

_BLOCK = 1 << 16
_BEGIN = b'{"line": '  # of a rejection
_NOT_OURS = "{} has lines that gpt2-reward did not write; move it away, or use another output"


@dataclass(slots=True)  # a frozen one takes three times as long to make
class Rewarded:
    """A line with its rewards, one for each candidate."""

    line: Line
    rewards: Sequence[float]


class Output:
    """The files of a job, open at the place where it continues.

    Args:
        job: says which files.
        identity: the identity of what would be written now.

    Attributes:
        n_done: input lines that are accounted for.
        n_rejected: lines that are listed as rejected, including those of earlier runs.
        model: the model that answered so far, as the output tells it; None before any answer.
        identity: as given, with the model's identity once that is known.

    Raises:
        OutputError: the files cannot be written, belong to something else, or are in use.
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
            if job.side:  # the output is in a directory whose folders are made here
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
        """Refuse a list of rejected lines without the other file that a run always leaves."""
        is_ours = job.meta.exists() or not job.rejected.exists() or not job.rejected.stat().st_size
        if not is_ours:
            raise OutputError(
                f"{job.rejected} exists, but {job.meta} does not, so gpt2-reward did not write it; "
                "move it away, or use another output"
            )

    def _go_on(self, job: Job, identity: Identity) -> None:
        if self._rewards.seek(0, os.SEEK_END):
            self.identity = identity.check(job)
            self.n_done, version = _cut_to_whole_lines(self._rewards, job.working)
            if version is None:  # only a torn line: no model has answered yet
                self.identity = identity
            elif self.identity.model is None:
                raise OutputError(
                    f"{job.meta} does not say which model made {job.output}; use another output"
                )
            else:
                self.model = self.identity.model
        elif job.converts and job.output.exists():
            identity.check(job)
        self.identity.write(job.meta)

    def write(
        self, rewarded: Sequence[Rewarded], rejections: Sequence[Rejection], model: ModelInfo | None
    ) -> None:
        """Add the next lines; on return the operating system has them, perhaps not yet the disk.

        Args:
            rewarded: lines in the order of the input.
            rejections: lines among or around them, in that order, too.
            model: the model that gave the rewards; None if `rewarded` is empty.

        Raises:
            OutputError: another model has answered, or the files cannot be written.
        """
        self.model = checked_model(self.model, model, self._path)
        try:
            self._note_model()
            _write(self._rejected, [_rejection_line(one) for one in rejections])
            _write(self._rewards, [_reward_line(one, self.model) for one in rewarded])
        except OSError as error:
            raise OutputError(
                f"cannot write {self._path}: {error.strerror or error}; fix that, and run the same "
                "command to continue"
            ) from error
        self.n_rejected += len(rejections)
        if rewarded:
            self.n_done = rewarded[-1].line.number

    def close(self) -> None:
        """Close the files, so that another process can continue."""
        self._files.close()

    def _note_model(self) -> None:
        """Record next to the output which model gave its rewards, before they are written."""
        if self.model != self.identity.model:
            self.identity = replace(self.identity, model=self.model)
            self.identity.write(self._meta)


class Printed:
    """Standard output instead of the files; nothing is resumed.

    Attributes:
        n_done: lines that were done before: 0.
        n_rejected: lines that have been reported on standard error.
        model: as `Output.model`.
    """

    def __init__(self) -> None:
        self.n_done = 0
        self.n_rejected = 0
        self.model: ModelInfo | None = None

    def write(
        self, rewarded: Sequence[Rewarded], rejections: Sequence[Rejection], model: ModelInfo | None
    ) -> None:
        """Like `Output.write`; rejections go to standard error, one JSON object per line.

        Raises:
            OutputError: another model has answered.
            BrokenPipeError: no process reads the output any more.
        """
        self.model = checked_model(self.model, model, "standard output")
        sys.stderr.write(b"".join(map(_rejection_line, rejections)).decode())
        sys.stdout.buffer.write(b"".join(_reward_line(one, self.model) for one in rewarded))
        sys.stdout.buffer.flush()
        self.n_rejected += len(rejections)

    def close(self) -> None:
        """Do nothing: no file is open."""


def checked_model(
    known: ModelInfo | None, model: ModelInfo | None, where: object
) -> ModelInfo | None:
    """The model whose rewards an output has from now on.

    Raises:
        OutputError: it would have those of two.
    """
    if known is None or model is None:
        return known or model
    if known.version != model.version:
        raise OutputError(
            f"{where} has rewards of version {known.version} of the model, and now version "
            f"{model.version} answers; rewards of different versions are not comparable: continue "
            f"with --model-version {known.version}, or use another output"
        )
    if None not in {known.identity, model.identity} and known.identity != model.identity:
        raise OutputError(
            f"{where} has rewards of the model with sha256 {known.identity}, and now another model "
            f"answers as version {model.version}: {model.identity}; their rewards are not "
            "comparable: ask a server that has the first one, or use another output"
        )
    before, now = known.usage, model.usage
    if before.max_tokens != now.max_tokens or before.chat_format not in (None, now.chat_format):
        raise OutputError(
            f"{where} has rewards of version {known.version} with {_reading(before)}, and now it "
            f"has {_reading(now)}; their rewards are not comparable: ask a server that has the "
            "first one, or use another output"
        )
    if known.identity is not None and before == now:
        return known
    return replace(model, identity=model.identity or known.identity)


def _reading(usage: Usage) -> str:
    form = usage.chat_format
    return f"a window of {usage.max_tokens} tokens and " + (
        "no format of conversations" if form is None else f"the format {form.as_json()}"
    )


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
    """Cut off a torn last line. -> number and version of the last whole one, (0, None) if none."""
    end = _line_break_before(file, file.seek(0, os.SEEK_END)) + 1
    file.truncate(end)
    if not end:
        return 0, None
    start = _line_break_before(file, end - 1) + 1
    try:
        item = json.loads(_read(file, start, end))
        line, version = item["line"], item["model_version"]
    except (ValueError, TypeError, KeyError) as error:
        raise OutputError(
            f"the last line of {path} was not written by gpt2-reward; use another output"
        ) from error
    if type(line) is not int or type(version) is not int:
        raise OutputError(
            f"the last line of {path} was not written by gpt2-reward; use another output"
        )
    return line, version


def _line_break_before(file: io.FileIO, end: int) -> int:
    """The position of the last line break before `end`; -1 if there is none."""
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
    """Cut off the rejections of lines that are not done yet, and a torn one. -> how many stay."""
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
    file.truncate(end)  # only now, when all of it is known to be ours
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
    # nine digits restore every float32 exactly; Python writes floats as JSON does
    numbers = ", ".join([repr(float(f"{reward:.9g}")) for reward in rewards])
    answer = f'"rewards": [{numbers}]' if is_group else f'"reward": {numbers}'
    own = "".join([f"{_json(name)}: {_json(value)}, " for name, value in copied.items()])
    by = "null" if version is None else version
    line = f'{{"line": {number}, {own}{answer}, "model_version": {by}}}\n'
    return line.encode()


def _json(value: object) -> str:
    """The value as `json.dumps` writes it, which takes several times as long for an id."""
    if type(value) is str:
        return encode_basestring_ascii(value)
    return str(value) if type(value) is int else json.dumps(value)
