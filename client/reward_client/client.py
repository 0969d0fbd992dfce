"""The blocking client: one object for any number of threads."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any

from reward_client.blocking import Run
from reward_client.calls import Calls, Encode
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
    server's contract with its own. One client per process is enough; several threads may use
    it at once. Make it after forking, not before.

    Args:
        url: host and gRPC port, such as `localhost:8001`; several in a list are used in turn,
            and servers that are down are skipped. `dns:///name:8001` uses every address of a name.
        timeout_s: seconds that one call may take as a whole, retries included. The server is
            told, and drops requests from its queue once their time is over.
        truncation: how a text longer than the model's window is cut. `left` is the model card's
            way; `shared_context` is another policy: docs/truncation.md.
        priority: `interactive` calls are served before `bulk` ones; the server's default if None.
        model: name of the model in the server's repository.
        model_version: the version to ask; the server's choice if None.
        connection: certificates, headers, channels and retries.
        on_timing: called with a `Timing` after each call and after each of its requests, on the
            thread of the call, which waits for it. If it raises, the error is logged and the call
            continues.
        chat_format: the format in which conversations are rendered, or the name of one of
            `FORMATS`; if None, the one that the model names, which is right unless you know better.

    Raises:
        ValueError: an argument is invalid, such as a `timeout_s` of 0.
        OSError: a certificate file cannot be read.

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
        """Close the connections; calls in flight fail, and later calls raise ValueError."""
        for server in self._servers:
            server.close()

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

    def connect(self) -> ServerInfo:
        """Ask a server who it is, and check its model against the contract, even if already known.

        Raises:
            ContractError: the server's model does not keep this client's contract.
            ServerError: no server could answer.
            ValueError: the client is closed.
        """
        return self._run(self._calls.connect())

    def server_info(self) -> ServerInfo:
        """Ask a server for its versions of the model and its largest batch; same as `connect`.

        Raises:
            RewardError: as in `connect`.
        """
        return self._run(self._calls.connect())

    def is_ready(self, *, timeout_s: float | None = None) -> bool:
        """Whether some server answers now and keeps the contract; each is asked once.

        Args:
            timeout_s: seconds for all of them; the client's if None.

        Raises:
            ContractError: a server's model does not keep the contract, and waiting will not help.
            ValueError: the client is closed.
        """
        return self._run(self._calls.is_ready(timeout_s))

    def wait_until_ready(self, timeout_s: float) -> ServerInfo:
        """Wait for a server that is starting or loading, and return what it says about itself.

        Args:
            timeout_s: the most seconds to wait.

        Raises:
            ContractError: the server's model does not keep this client's contract.
            ServerError: no server was ready in that time; this is the last error.
            ValueError: `timeout_s` is invalid, or the client is closed.
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
            texts: what to score, each a context followed by a candidate. Only the last tokens of
                a text count, 256 unless the model says otherwise, whatever `truncation` says of
                groups. More texts than the server's largest batch go in several requests.
            timeout_s: seconds for this call; the client's if None.
            priority: priority of this call; the client's if None.
            model_version: the version to ask; the client's if None.
            headers: headers of this call, in addition to the connection's.
            on_error: `nan` gives NaN to rows whose reward is not finite, instead of raising;
                invalid texts still raise.

        Returns:
            The rewards in the order of `texts`, and the model that gave them.

        Raises:
            InvalidInputError: a text cannot be scored; `row` says which.
            ContractError: the server's model does not keep this client's contract, or its
                version keeps changing.
            ServerError: no server could answer; `reward_client.errors` lists the reasons.
            NonFiniteRewardError: the server answered NaN or infinity; `rows` says for which
                texts. Not raised with `nan`.
            ValueError: `timeout_s` or `priority` is invalid, or the client is closed.
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

        The text that is scored is `context + candidate`, with nothing in between. The
        context may be empty, and so may a candidate.

        Args:
            context: the conversation so far: a text, to which candidates are appended
                unchanged; or messages (`{"role": ..., "content": ...}`) or a `Conversation`, which
                are rendered in the model's format, with the candidates as replies.
            candidates: the replies.
            timeout_s: seconds for this call; the client's if None.
            priority: priority of this call; the client's if None.
            truncation: truncation of this call; the client's if None.
            model_version: the version to ask; the client's if None.
            headers: headers of this call, in addition to the connection's.
            on_error: `nan` gives NaN to candidates whose reward is not finite, and ranks them last;
                invalid input still raises.
            models: names of several models on the servers, and the weight of each, at least 0: each
                is asked, in its own format and window, and candidates are ranked by the weighted
                mean of the probabilities. `Ranking.of_model` has each model's own rewards. If
                None, only the client's model is asked.

        Raises:
            InvalidInputError: the context or a candidate cannot be scored; `row` is the index of
                the candidate, or None if the context is at fault. Or a weight is negative or
                not finite, or all are 0.
            NoFormatError: the context is messages, and the model does not say how it reads them.
            ModelNotFoundError: the server does not have one of `models`.
            ValueError: `models` is given and a version is pinned: version numbers belong to one
                model.
            RewardError: as in `score`.
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
            timeout_s: seconds for all groups together; the client's if None.
            priority: priority of this call; the client's if None.
            truncation: truncation of this call; the client's if None.
            model_version: the version to ask; the client's if None.
            headers: headers of this call, in addition to the connection's.
            on_error: as in `rank`; `nan` also gives a group whose input cannot be scored a
                ranking of NaN, in the order given, with the reason in `Ranking.error`.

        Returns:
            A ranking for each group, in their order.

        Raises:
            InvalidInputError: as in `rank`; `group` says in which group. Not raised with `nan`.
            NonFiniteRewardError: as in `score`; `rows` numbers the candidates of all groups,
                from 0.
            RewardError: as in `score`.
        """
        wishes = Wishes(timeout_s, priority, truncation, model_version, headers, on_error)
        return self._run(self._calls.rank_many(groups, wishes))

    def _rewards(self, encode: Encode, *, is_chat: bool) -> Scores:
        """Like `score`, for rows that the caller makes."""
        return self._run(self._calls.rewards("score", encode, Wishes(), is_chat=is_chat))

    def _run(self, steps: Steps[T]) -> T:
        """Do the call's steps one after another, and send it the result of each."""
        go_on: Callable[[], Step] = partial(steps.send, None)
        try:
            while True:
                step = go_on()
                try:
                    go_on = partial(steps.send, self._do(step))
                except Exception as error:  # noqa: BLE001  # the call handles it or lets it through
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
