"""The client that waits: one object, any number of threads."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any

from reward_client.blocking import Run
from reward_client.calls import Calls
from reward_client.connection import Connection
from reward_client.counters import Counts
from reward_client.encoding import Group
from reward_client.errors import RewardError
from reward_client.options import OnError, Options, Priority, Wishes, format_of
from reward_client.results import Ranking, Scores, ServerInfo
from reward_client.servers import Server
from reward_client.steps import Ask, Pause, Step, Steps, T, Work
from reward_client.timing import OnTiming
from reward_contract import MODEL_NAME
from reward_text import Context, Format, Truncation


class RewardClient:
    r"""Scores texts with a reward model on Triton.

    It connects at the first call, or on entering a `with` block, and then compares the
    server's contract with its own. One client a process is enough; it may be used by
    several threads at once. Make it after forking, not before.

    Args:
        url: host and gRPC port, such as `localhost:8001`; several in a list are used in turn,
            and one that is away is gone around. `dns:///name:8001` uses every address of a name.
        timeout_s: seconds that one call may take as a whole, retries included. The server is
            told, and drops what nobody waits for any more from its queue.
        truncation: what a text loses that is longer than the model reads. `left` is the model
            card's way; `shared_context` is another policy: docs/truncation.md.
        priority: `interactive` calls are served before `bulk` ones; the server's default if None.
        model: name of the model in the server's repository.
        model_version: the version to ask; the server's choice if None.
        connection: certificates, headers, channels and retries.
        on_timing: called with a `Timing` after each call and after each of its requests, on the
            thread of the call, which waits for it. What it raises is logged, and fails no call.
        chat_format: in which conversations are rendered, or the name of one of `FORMATS`; the one
            that the model names if None, which is the right one unless you know better.

    Raises:
        ValueError: an argument that means nothing, such as a `timeout_s` of 0.
        OSError: a certificate's file cannot be read.

    Example:
        >>> with RewardClient("localhost:8001") as client:  # doctest: +SKIP
        ...     best, *others = client.rank("Hi, how are you?\n", ["Fine, and you?", "No."])
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
        self._servers = [Server(endpoint.url, connection) for endpoint in self._calls.endpoints.all]

    def __enter__(self) -> "RewardClient":
        try:
            self.connect()
        except RewardError:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; calls on their way fail, and later ones with ValueError."""
        for server in self._servers:
            server.close()

    @property
    def timeout_s(self) -> float:
        """Seconds of a call that does not say."""
        return self._calls.options.timeout_s

    @property
    def truncation(self) -> Truncation:
        """What the candidates of a group lose that are too long."""
        return self._calls.options.truncation

    @property
    def chat_format(self) -> Format | None:
        """In which conversations are rendered in place of the model's own; None for that one."""
        return self._calls.options.chat_format

    @property
    def counts(self) -> Counts:
        """What this client has done so far."""
        return self._calls.counters.now

    def connect(self) -> ServerInfo:
        """Ask a server who it is, and hold its model to the contract, whatever is known of it.

        Raises:
            ContractError: it serves a model that this client does not speak to.
            ServerError: none could answer.
            ValueError: the client is closed.
        """
        return self._run(self._calls.connect())

    def server_info(self) -> ServerInfo:
        """Ask a server who it is, as `connect`: its versions of the model and its largest batch.

        Raises:
            RewardError: as `connect`.
        """
        return self._run(self._calls.connect())

    def is_ready(self, *, timeout_s: float | None = None) -> bool:
        """Whether some server answers now and keeps the contract; each is asked once.

        Args:
            timeout_s: seconds for all of them; the client's if None.

        Raises:
            ContractError: a server has another model, which no waiting changes.
            ValueError: the client is closed.
        """
        return self._run(self._calls.is_ready(timeout_s))

    def wait_until_ready(self, timeout_s: float) -> ServerInfo:
        """Wait for a server that starts or loads, and say who it is.

        Args:
            timeout_s: seconds at most.

        Raises:
            ContractError: it serves a model that this client does not speak to.
            ServerError: none has answered in that time; the last reason.
            ValueError: `timeout_s` means nothing, or the client is closed.
        """
        return self._run(self._calls.wait_until_ready(timeout_s))

    def score(  # noqa: PLR0913  # by keyword, each with a default
        self,
        texts: Sequence[str],
        *,
        timeout_s: float | None = None,
        priority: Priority | None = None,
        model_version: int | None = None,
        headers: Mapping[str, str] | None = None,
        on_error: OnError = "raise",
    ) -> Scores:
        """The reward of each text.

        Args:
            texts: what to score, each a context with a candidate behind it. Of a text, the
                last 256 tokens count, whatever `truncation` says of groups. More than the
                server's largest batch are sent in several requests.
            timeout_s: seconds for this call; the client's if None.
            priority: of this call; the client's if None.
            model_version: to ask; the client's if None.
            headers: of this call, besides the connection's.
            on_error: `nan` gives NaN to rows that cannot be scored, and all others their reward.

        Returns:
            Rewards in the order of `texts`, and who gave them.

        Raises:
            InvalidInputError: a text cannot be scored; `row` says which.
            ContractError: the server does not serve the model this client speaks to, or
                exchanges its version all the time.
            ServerError: it could not answer, in one of the ways of `reward_client.errors`.
            NonFiniteRewardError: it answered NaN; `rows` says for which texts. Not with `nan`.
            ValueError: `timeout_s` or `priority` means nothing, or the client is closed.
        """
        wishes = Wishes(timeout_s, priority, None, model_version, headers, on_error)
        return self._run(self._calls.score(texts, wishes))

    def rank(  # noqa: PLR0913  # by keyword, each with a default
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
        """The candidates with their rewards, best first; equal ones in the order given.

        The text that is scored is `context + candidate`, without anything between. The
        context may be empty, and so may a candidate.

        Args:
            context: the conversation so far: a text, to which candidates are appended as they
                are; or messages (`{"role": ..., "content": ...}`) or a `Conversation`, which are
                rendered in the model's format, the candidates as replies.
            candidates: the replies.
            timeout_s: as `score`'s, and so are those below that it has.
            priority: of this call; the client's if None.
            truncation: of this call; the client's if None.
            model_version: to ask; the client's if None.
            headers: of this call, besides the connection's.
            on_error: `nan` gives NaN to candidates that cannot be scored, and ranks them last.
            models: names of several models on the servers, and the weight of each, at least 0: each
                is asked, in its own format and window, and candidates are ranked by the weighted
                mean of the probabilities. `Ranking.of_model` has each model's own rewards. The
                client's model alone if None.

        Raises:
            InvalidInputError: the context or a candidate cannot be scored; `row` counts
                candidates, and is None where the context is to blame. Or a weight is negative or
                not finite, or all are 0.
            NoFormatError: messages, and the model does not say how it reads them.
            ModelNotFoundError: the server does not have one of `models`.
            ValueError: `models`, and a version is pinned, which is a number of one model.
            RewardError: as `score`.
        """
        wishes = Wishes(timeout_s, priority, truncation, model_version, headers, on_error)
        return self._run(self._calls.rank(context, candidates, wishes, models))

    def rank_many(  # noqa: PLR0913  # by keyword, each with a default
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
        """`rank` for several groups, in as few requests as they fit into.

        Args:
            groups: pairs of a context and its candidates.
            timeout_s: seconds for all of them; the client's if None.
            priority: of this call; the client's if None.
            truncation: of this call; the client's if None.
            model_version: to ask; the client's if None.
            headers: of this call, besides the connection's.
            on_error: as `rank`'s; `nan` also gives a group whose input cannot be scored a
                ranking of NaN, in the order given, with the reason in `Ranking.error`.

        Returns:
            A ranking for each group, in their order.

        Raises:
            InvalidInputError: as `rank`; `group` says in which. Not with `nan`.
            NonFiniteRewardError: `rows` counts the candidates of all groups from 0 on.
            RewardError: as `score`.
        """
        wishes = Wishes(timeout_s, priority, truncation, model_version, headers, on_error)
        return self._run(self._calls.rank_many(groups, wishes))

    def _run(self, steps: Steps[T]) -> T:
        """Do one step after the other, and tell the call what came of it."""
        go_on: Callable[[], Step] = partial(steps.send, None)
        try:
            while True:
                step = go_on()
                try:
                    go_on = partial(steps.send, self._do(step))
                except Exception as error:  # noqa: BLE001  # theirs to handle or to let through
                    go_on = partial(steps.throw, error)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            steps.close()

    def _do(self, step: Step) -> Any:  # noqa: ANN401  # see Steps
        if isinstance(step, Ask):
            return self._servers[step.server].ask(step)
        if isinstance(step, Pause):
            return time.sleep(step.seconds)
        if isinstance(step, Work):
            return step.action()
        return Run(self._servers).do(step)
