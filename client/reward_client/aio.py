"""The asyncio client: one object per event loop, for any number of tasks."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any

import grpc
import grpc.aio

from reward_client.addresses import has_many_addresses
from reward_client.blocking import IN_FLIGHT
from reward_client.calls import Calls, Encode
from reward_client.channels import Channels
from reward_client.connection import Connection
from reward_client.counters import Counts
from reward_client.encoding import Group
from reward_client.errors import InternalError, RewardError
from reward_client.options import OnError, Options, Priority, Wishes, format_of
from reward_client.results import Ranking, Scores, ServerInfo
from reward_client.servers import CLOSED
from reward_client.steps import Ask, Hedged, Pause, Step, Steps, T, Work
from reward_client.tasks import as_completed, cancel
from reward_client.timing import OnTiming
from reward_contract import MODEL_NAME
from reward_text import Context, Format, Truncation

OTHER_LOOP = "the client belongs to the event loop of its first call; make one in each event loop"


class AsyncRewardClient:
    r"""`RewardClient` for asyncio: same arguments, methods, results and errors, awaited.

    It also has `rank_each`. Any number of tasks of one event loop may use it. Cancelling a call
    cancels its requests, and the server drops those that are still in its queue.

    Example:
        >>> async def best_of(context, candidates):
        ...     async with AsyncRewardClient("localhost:8001") as client:
        ...         return (await client.rank(context, candidates)).best.text
    """

    def __init__(  # noqa: PLR0913  # by keyword, each with a default
        self,
        url: str | Sequence[str] = "localhost:8001",
        *,
        timeout_s: float = 30.0,
        truncation: Truncation = "left",
        priority: Priority | None = None,
        model: str = MODEL_NAME,
        model_version: int | None = None,
        connection: Connection | None = None,
        on_timing: OnTiming | None = None,
        chat_format: Format | str | None = None,
    ) -> None:
        connection = connection or Connection()
        self._calls = Calls(
            url,
            Options(
                timeout_s,
                truncation,
                priority,
                model,
                model_version,
                connection,
                on_timing,
                format_of(chat_format),
            ),
        )
        self._servers = [
            _Server(endpoint.url, connection) for endpoint in self._calls.endpoints.all
        ]

    async def __aenter__(self) -> "AsyncRewardClient":
        try:
            await self.connect()
        except RewardError:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """See `RewardClient.close`."""
        for server in self._servers:
            await server.close()

    @property
    def timeout_s(self) -> float:
        """Timeout in seconds of the calls that do not set one."""
        return self._calls.options.timeout_s

    @property
    def truncation(self) -> Truncation:
        """How the texts of a group are cut if too long, in calls that do not set it."""
        return self._calls.options.truncation

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._calls.options.model

    @property
    def chat_format(self) -> Format | None:
        """Format in which conversations are rendered; None for the model's own."""
        return self._calls.options.chat_format

    @property
    def counts(self) -> Counts:
        """What this client has done so far."""
        return self._calls.counters.now

    async def connect(self) -> ServerInfo:
        """See `RewardClient.connect`."""
        return await self._run(self._calls.connect())

    async def server_info(self) -> ServerInfo:
        """See `RewardClient.server_info`."""
        return await self._run(self._calls.connect())

    async def is_ready(self, *, timeout_s: float | None = None) -> bool:
        """See `RewardClient.is_ready`."""
        return await self._run(self._calls.is_ready(timeout_s))

    async def wait_until_ready(self, timeout_s: float) -> ServerInfo:
        """See `RewardClient.wait_until_ready`."""
        return await self._run(self._calls.wait_until_ready(timeout_s))

    async def score(  # noqa: PLR0913  # by keyword, each with a default
        self,
        texts: Sequence[str],
        *,
        timeout_s: float | None = None,
        priority: Priority | None = None,
        model_version: int | None = None,
        headers: Mapping[str, str] | None = None,
        on_error: OnError = "raise",
    ) -> Scores:
        """See `RewardClient.score`."""
        wishes = Wishes(timeout_s, priority, None, model_version, headers, on_error)
        return await self._run(self._calls.score(texts, wishes))

    async def rank(  # noqa: PLR0913  # by keyword, each with a default
        self,
        context: Context,
        candidates: Sequence[str],
        *,
        timeout_s: float | None = None,
        priority: Priority | None = None,
        truncation: Truncation | None = None,
        model_version: int | None = None,
        headers: Mapping[str, str] | None = None,
        on_error: OnError = "raise",
        models: Mapping[str, float] | None = None,
    ) -> Ranking:
        """See `RewardClient.rank`."""
        wishes = Wishes(timeout_s, priority, truncation, model_version, headers, on_error)
        return await self._run(self._calls.rank(context, candidates, wishes, models))

    async def rank_many(  # noqa: PLR0913  # by keyword, each with a default
        self,
        groups: Sequence[Group],
        *,
        timeout_s: float | None = None,
        priority: Priority | None = None,
        truncation: Truncation | None = None,
        model_version: int | None = None,
        headers: Mapping[str, str] | None = None,
        on_error: OnError = "raise",
    ) -> list[Ranking]:
        """See `RewardClient.rank_many`."""
        wishes = Wishes(timeout_s, priority, truncation, model_version, headers, on_error)
        return await self._run(self._calls.rank_many(groups, wishes))

    def rank_each(  # noqa: PLR0913  # by keyword, each with a default
        self,
        groups: Iterable[Group],
        *,
        in_flight: int = 8,
        timeout_s: float | None = None,
        priority: Priority | None = None,
        truncation: Truncation | None = None,
        model_version: int | None = None,
        headers: Mapping[str, str] | None = None,
        on_error: OnError = "raise",
    ) -> AsyncGenerator[tuple[int, Ranking], None]:
        """The rankings of any number of groups, each as soon as it is ready.

        Each group is a separate call, so the model may be updated between two of them. Closing
        the generator or cancelling its task cancels the requests in flight.

        Args:
            groups: pairs of a context and its candidates. An iterator is read only as far as
                `in_flight` allows; reading it must not block the event loop.
            in_flight: the most groups that are started and whose rankings are not taken yet.
            timeout_s: seconds for each group; the client's if None.
            priority: priority of each call; the client's if None.
            truncation: truncation of each call; the client's if None.
            model_version: the version to ask; the client's if None.
            headers: headers of each call, in addition to the connection's.
            on_error: as in `rank_many`.

        Returns:
            A generator of pairs: the group's index in `groups`, from 0, and its ranking.

        Raises:
            RewardError: as in `rank_many`, for one group, while iterating; the other groups are
                cancelled.
            ValueError: `in_flight` is less than 1.
        """
        if in_flight < 1:
            raise ValueError(f"in_flight must be at least 1, not {in_flight}")
        wishes = Wishes(timeout_s, priority, truncation, model_version, headers, on_error)
        calls = (self._calls.rank_each(*one, wishes) for one in enumerate(groups))
        return as_completed((self._run(steps) for steps in calls), in_flight)

    async def _rewards(
        self, method: str, encode: Encode, timeout_s: float, *, is_chat: bool
    ) -> Scores:
        """Like `score` or `rank_many`, for rows that the caller makes."""
        wishes = Wishes(timeout_s=timeout_s)
        return await self._run(self._calls.rewards(method, encode, wishes, is_chat=is_chat))

    async def _run(self, steps: Steps[T]) -> T:
        """Do the call's steps one after another, and send it the result of each."""
        go_on: Callable[[], Step] = partial(steps.send, None)
        try:
            while True:
                step = go_on()
                try:
                    go_on = partial(steps.send, await self._do(step))
                except Exception as error:  # noqa: BLE001  # the call handles it or lets it through
                    go_on = partial(steps.throw, error)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            steps.close()

    async def _do(self, step: Step) -> Any:  # noqa: ANN401  # see Steps
        if isinstance(step, Ask):
            return await self._servers[step.server].ask(step)
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        if isinstance(step, Work):
            elsewhere = step.elsewhere or partial(asyncio.to_thread, step.action)
            return await elsewhere()
        if isinstance(step, Hedged):
            return await self._first_of(step)
        places = asyncio.Semaphore(IN_FLIGHT)
        tasks = [asyncio.ensure_future(self._run_in(places, part)) for part in step.parts]
        try:
            return await asyncio.gather(*tasks)
        finally:
            await cancel(tasks)

    async def _run_in(self, places: asyncio.Semaphore, steps: Steps[T]) -> T:
        async with places:
            return await self._run(steps)

    async def _first_of(self, step: Hedged) -> Any:  # noqa: ANN401  # see Steps
        tasks = [asyncio.ensure_future(self._run(step.first))]
        (first,) = tasks
        try:
            while len(tasks) == 1 and not (await asyncio.wait(tasks, timeout=step.after_s))[0]:
                second = step.second()
                if second is not None:
                    tasks.append(asyncio.ensure_future(self._run(second)))
            running = set(tasks)
            while running:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if task.exception() is None:
                        return task.result()
            return first.result()  # raises its error
        finally:
            await cancel(tasks)


class _Server:
    """Channels to one address, made by the first call, which runs in the event loop."""

    def __init__(self, url: str, connection: Connection) -> None:
        self._url = url
        self._connection = connection
        self._credentials = connection.tls.credentials() if connection.tls else None
        self._channels: Channels[grpc.aio.Channel] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False

    async def ask(self, step: Ask) -> Any:  # noqa: ANN401  # a message, or the error
        channels = self._open()
        line, outcome, began = channels.take(), None, time.monotonic()
        method: Callable[..., Any] = getattr(line.stub, step.method)
        try:
            outcome = await method(step.request, timeout=step.timeout_s, metadata=step.metadata)
        except grpc.RpcError as error:
            outcome = error
        except asyncio.CancelledError as error:
            if not self._is_closed or _is_cancelled():
                raise
            raise InternalError(CLOSED, url=self._url) from error
        finally:
            finished = channels.give_back(line, began, outcome)
            if finished is not None:
                await finished.channel.close()
        return outcome

    async def close(self) -> None:
        self._is_closed = True
        for line in self._channels.all if self._channels else ():
            await line.channel.close()

    def _open(self) -> Channels[grpc.aio.Channel]:
        if self._is_closed:
            raise ValueError(CLOSED)
        loop = asyncio.get_running_loop()
        if self._channels is None:
            has_many = has_many_addresses(self._url)
            self._channels = Channels(self._connection.channels, self._channel, has_many=has_many)
            self._loop = loop
        if self._loop is not loop:
            raise ValueError(OTHER_LOOP)
        return self._channels

    def _channel(self) -> grpc.aio.Channel:
        options = self._connection.channel_options()
        if self._credentials is None:
            return grpc.aio.insecure_channel(self._url, options)
        return grpc.aio.secure_channel(self._url, self._credentials, options)


def _is_cancelled() -> bool:
    """Whether this task was asked to end; True on Python 3.10, which cannot tell."""
    cancelling: Callable[[], int] | None = getattr(asyncio.current_task(), "cancelling", None)
    return cancelling is None or cancelling() > 0
