"""From the input to the output: read, ask several at once, write in order."""

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, replace
from functools import partial

from reward_client.aio import AsyncRewardClient
from reward_client.bulk import rescoring
from reward_client.bulk.asker import MAX_ROWS, Asker
from reward_client.bulk.chunks import Chunk, chunks
from reward_client.bulk.convert import converter, n_lines_of
from reward_client.bulk.errors import MalformedLineError
from reward_client.bulk.identity import Identity
from reward_client.bulk.job import Job, Totals
from reward_client.bulk.lines import Line, Rejection
from reward_client.bulk.output import Output, Printed, Rewarded, checked_model
from reward_client.bulk.patience import Patience
from reward_client.bulk.progress import Progress
from reward_client.bulk.source import Source, open_source
from reward_client.bulk.streams import STDIN
from reward_client.errors import NonFiniteRewardError
from reward_client.results import ModelInfo

_NOT_FINITE = "the model's reward is NaN or infinite"


@dataclass(frozen=True, slots=True)
class _Scored:
    """A chunk with its answers; more of its lines may be rejected now."""

    chunk: Chunk
    rewarded: list[Rewarded]
    rejections: list[Rejection]
    model: ModelInfo | None


async def score_file(job: Job, client: AsyncRewardClient, *, quiet: bool = True) -> Totals:
    """Score what is not in the output yet.

    Args:
        job: input and output.
        client: asks the server; its priority should be `bulk`, and its `timeout_s` long: a call may
            take that long per 128 rows. The output remembers its `truncation` and `chat_format`.
        quiet: whether to show nothing; else a bar on standard error if that is a terminal.

    Returns:
        What this run has done.

    Raises:
        InvalidInputError: the input cannot be read.
        MalformedLineError: a line cannot be scored, and the job is strict. What comes before it
            is in the output.
        OutputError: the output cannot be written, belongs to another input, or has rewards of
            another version of the model, or of the same version number in another model, window
            or format.
        ServerError: no answer came for `patience_s`, or an error that waiting does not fix.
            After this and any other end, the next run continues where this one stopped.
    """
    return await score_files([job], client, quiet=quiet)


async def score_files(
    jobs: Sequence[Job], client: AsyncRewardClient, *, quiet: bool = True
) -> Totals:
    """Score several files one after the other, once all of them have been checked.

    Args:
        jobs: the files, each with an output of its own.
        client: as for `score_file`.
        quiet: as for `score_file`.

    Returns:
        What this run has done with all of them.

    Raises:
        RewardError: as for `score_file`.
    """
    for job in jobs:
        converter(job)  # a missing extra is reported before the work
        if job.input != STDIN:
            open_source(job).close()
    sizes = [job.input.stat().st_size if job.input != STDIN else 0 for job in jobs]
    totals = Totals(0, 0, 0, 0, 0, 0, 0.0)
    with Progress(sum(sizes), quiet=quiet) as progress:
        async with aclosing(Asker(client)) as asker:
            for number, (job, size) in enumerate(zip(jobs, sizes, strict=True), start=1):
                label = f"file {number}/{len(jobs)}, " if len(jobs) > 1 else ""
                with closing(open_source(job)) as source:
                    progress.begin(size, source.total, label)
                    totals += await _scored(job, asker, source, progress)
    return totals


async def _scored(job: Job, asker: Asker, source: Source, progress: Progress) -> Totals:
    if job.is_printed:
        return await _Run(job, asker, Printed(), progress).all_of(source)
    identity = Identity.of(job, asker.client, source.head)
    if job.is_converted:
        identity = identity.check(job)
        totals = _converted(job)
    else:
        with closing(Output(job, identity)) as output:
            progress.skip_to(source.skip(output.n_done))
            totals = await _Run(job, asker, output, progress).all_of(source)
            identity = output.identity
            if convert := converter(job):
                convert()
    if job.rescore_rejected and totals.all_rejected:
        return await _rescored(job, asker, totals, progress, identity)
    return totals


async def _rescored(
    job: Job, asker: Asker, totals: Totals, progress: Progress, identity: Identity
) -> Totals:
    """Score only the lines that were set aside, and put them where they belong."""
    again = rescoring.job_of(job)
    own = Identity.of(again, asker.client)
    rescoring.discard_another(again, own)
    with closing(open_source(again)) as source, closing(Output(again, own)) as output:
        source.skip(output.n_done)
        # another model is refused
        output.model = checked_model(identity.model, output.model, job.output)
        found = await _Run(again, asker, output, progress).all_of(source)
        replace(identity, model=output.model).write(job.meta)
        rescoring.merge(job, again)
    if convert := converter(job):
        convert()
    rescoring.discard(again)
    return replace(
        totals,
        lines=totals.lines + found.lines,
        rows=totals.rows + found.rows,
        rejected=found.all_rejected,
        all_rejected=found.all_rejected,
        seconds=totals.seconds + found.seconds,
    )


def _converted(job: Job) -> Totals:
    """What earlier runs did, the last of which finished the output."""
    n_rejected = 0
    if job.rejected.exists():
        with job.rejected.open("rb") as file:
            n_rejected = sum(1 for _ in file)
    n_lines = n_lines_of(job) + n_rejected
    return Totals(0, 0, 0, n_lines, n_lines, n_rejected, 0.0)


class _Run:
    """One pass over the rest of the input."""

    def __init__(
        self, job: Job, asker: Asker, output: Output | Printed, progress: Progress
    ) -> None:
        self._job = job
        self._asker = asker
        self._output = output
        self._progress = progress
        self._patience = Patience(job.patience_s, job.in_flight, progress.say)
        self._n_lines = self._n_rows = self._n_rejected = 0

    async def all_of(self, source: Source) -> Totals:
        resumed_at = self._job.n_lines_up_to(self._output.n_done)
        start = time.monotonic()
        info = await self._patience.until_answered(self._asker.client.connect)
        await self._in_order(chunks(source, min(info.max_batch_rows, MAX_ROWS)))
        seconds = time.monotonic() - start
        return Totals(
            self._n_lines,
            self._n_rows,
            self._n_rejected,
            resumed_at,
            resumed_at + self._n_lines + self._n_rejected,
            self._output.n_rejected,
            seconds,
        )

    async def _in_order(self, portions: Iterator[Chunk]) -> None:
        """Hold twice as many chunks as may be in flight: one slow answer does not stop all."""
        tasks: deque[asyncio.Task[_Scored]] = deque()
        try:
            for chunk in portions:
                tasks.append(asyncio.create_task(self._scored(chunk)))
                if len(tasks) > 2 * self._job.in_flight:
                    self._write(await tasks.popleft())
            while tasks:
                self._write(await tasks.popleft())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _scored(self, chunk: Chunk) -> _Scored:
        lines, rejections = chunk.lines, list(chunk.rejections)
        while lines:
            try:
                ask = partial(self._asker.rewards, lines)
                rewards, model = await self._patience.until_answered(ask)
            except NonFiniteRewardError as error:
                bad = _numbers_of(lines, error.rows)
                rejections += [Rejection(number, _NOT_FINITE) for number in sorted(bad)]
                lines = [line for line in lines if line.number not in bad]
            else:
                rewarded = [Rewarded(*pair) for pair in zip(lines, rewards, strict=True)]
                return _Scored(chunk, rewarded, _sorted(rejections), model)
        return _Scored(chunk, [], _sorted(rejections), None)

    def _write(self, scored: _Scored) -> None:
        if self._job.strict and scored.rejections:
            self._stop_before(scored.rejections[0], scored)
        self._output.write(scored.rewarded, scored.rejections, scored.model)
        self._n_lines += len(scored.rewarded)
        n_rows = sum(len(one.rewards) for one in scored.rewarded)
        self._n_rows += n_rows
        self._n_rejected += len(scored.rejections)
        self._progress.at(scored.chunk.end, n_rows)

    def _stop_before(self, first: Rejection, scored: _Scored) -> None:
        before = [one for one in scored.rewarded if one.line.number < first.line]
        self._output.write(before, [], scored.model if before else None)
        raise MalformedLineError(
            f"line {first.line} of {self._job.input}: {first.reason}; the lines before it are "
            "scored. Fix it and continue with --trust-input, or leave out --strict",
            line=first.line,
        )


def _numbers_of(lines: Sequence[Line], candidates: Sequence[int]) -> set[int]:
    """Numbers of the lines that the candidates belong to, which are counted across all lines."""
    numbers = [line.number for line in lines for _ in line.candidates]
    return {numbers[index] for index in candidates}


def _sorted(rejections: list[Rejection]) -> list[Rejection]:
    return sorted(rejections, key=lambda one: one.line)
