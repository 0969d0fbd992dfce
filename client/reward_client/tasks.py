"""Several asyncio tasks of one owner: none of them outlives it."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


async def as_completed(
    work: Iterator[Coroutine[Any, Any, T]], in_flight: int
) -> AsyncGenerator[T, None]:
    """The results as they come, with at most `in_flight` begun and not yet taken.

    Raises:
        Exception: the first error, including one of `work` itself. The other tasks are cancelled
            then, and if the generator is closed.
    """
    finished: asyncio.Queue[asyncio.Task[T]] = asyncio.Queue()
    tasks: set[asyncio.Task[T]] = set()
    try:
        while True:
            while len(tasks) < in_flight and (one := next(work, None)) is not None:
                task = asyncio.ensure_future(one)
                task.add_done_callback(finished.put_nowait)
                tasks.add(task)
            if not tasks:
                return
            task = await finished.get()
            tasks.remove(task)
            yield task.result()
    finally:
        await cancel([*tasks])


async def cancel(tasks: Sequence["asyncio.Future[Any]"]) -> None:
    """Cancel what is still running, and wait for it: nothing of a call outlives it."""
    left = [task for task in tasks if not task.done()]
    for task in left:
        task.cancel()
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # seen: asyncio need not report it
    if left:
        await asyncio.wait(left)
