"""Processes that tokenise for a run that would otherwise keep one core busy and leave others idle.

They are started once a run has proved to be large and limited by this process, not by the server.
Until they are ready, this process tokenises.
"""

import asyncio
import os
import pickle
import sys
import time
from collections import deque
from contextlib import suppress
from typing import cast

from reward_client.bulk.errors import WorkerError
from reward_text import Encoded
from reward_text.worker import LENGTH_BYTES, Order, packed

FROM_TEXTS = 5_000  # starting a process costs as much as tokenising these
BUSY = 0.5  # share of a core that this process must need
MOST_PROCESSES = 4  # one is enough for short texts


class Workers:
    """Starts processes when they are worth it, and gives each the next order in turn."""

    def __init__(self) -> None:
        self._n_texts = 0
        self._began, self._cpu_began = time.monotonic(), time.process_time()
        self._starting: list[asyncio.Task[None]] = []
        self._ready: list[_Worker] = []

    async def rows(self, order: Order) -> Encoded | None:
        """The rows of an order; None if this process has to tokenise, or to find what is wrong.

        Raises:
            WorkerError: a process has ended by itself.
        """
        self._n_texts += len(order.texts) + len(order.groups)
        if not self._starting and self._n_texts >= FROM_TEXTS and self._is_busy():
            n_processes = min((os.cpu_count() or 1) - 1, MOST_PROCESSES)
            self._starting = [asyncio.create_task(self._start()) for _ in range(n_processes)]
        worker = min(self._ready, key=lambda one: one.n_waiting, default=None)
        if worker is None:
            return None
        return await worker.rows(order)

    async def close(self) -> None:
        """End all processes."""
        for task in self._starting:
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        for worker in self._ready:
            await worker.close()

    def _is_busy(self) -> bool:
        cpu_s = time.process_time() - self._cpu_began
        return cpu_s > BUSY * (time.monotonic() - self._began)

    async def _start(self) -> None:
        """Add a process as soon as it is ready; do without one that cannot be started."""
        with suppress(OSError):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "reward_text.worker"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "PYTHONSAFEPATH": "1"},  # nothing is imported from this folder
            )
            worker = _Worker(process)
            try:
                await worker.is_ready
            except BaseException as error:
                await worker.close()
                if not isinstance(error, WorkerError):
                    raise
            else:
                self._ready.append(worker)


class _Worker:
    """One process.

    Attributes:
        is_ready: done when it takes orders.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._orders = cast("asyncio.StreamWriter", process.stdin)
        self._answers = cast("asyncio.StreamReader", process.stdout)
        self.is_ready = asyncio.get_running_loop().create_future()
        self._waiting: deque[asyncio.Future[Encoded | None]] = deque([self.is_ready])
        self._reading = asyncio.create_task(self._read())

    @property
    def n_waiting(self) -> int:
        """Number of orders that are not done."""
        return len(self._waiting)

    async def rows(self, order: Order) -> Encoded | None:
        """The rows of an order.

        Raises:
            WorkerError: the process has ended.
        """
        if self._reading.done():
            raise self._ended()
        rows: asyncio.Future[Encoded | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(rows)
        self._orders.write(packed(order))
        return await rows

    async def close(self) -> None:
        """End the process, whatever it does."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reading

    async def _read(self) -> None:
        """Give each order its rows, until the process ends."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                length = await self._answers.readexactly(LENGTH_BYTES)
                data = await self._answers.readexactly(int.from_bytes(length, "little"))
                rows = self._waiting.popleft()
                if not rows.done():  # it is if the call was cancelled
                    rows.set_result(pickle.loads(data))  # noqa: S301  # from our own process
        await self._process.wait()
        for rows in self._waiting:
            if not rows.done():
                rows.set_exception(self._ended())

    def _ended(self) -> WorkerError:
        return WorkerError(
            f"a process that tokenises has ended with code {self._process.returncode}; if it was "
            "killed for want of memory, free some; the same command continues from here"
        )
