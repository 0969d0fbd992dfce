"""Asks for the rewards of lines."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

from reward_client.aio import AsyncRewardClient
from reward_client.bulk.lines import Line
from reward_client.bulk.workers import Workers
from reward_client.encoding import Group, Part, encode_groups, encode_texts
from reward_client.results import ModelInfo
from reward_client.steps import Steps, Work
from reward_text import Usage, is_chat
from reward_text.worker import Order

MAX_ROWS = 128  # of a request; small ones cost both sides more per row, large ones retry worse


class Asker:
    """A client, and the processes that tokenise for it.

    Args:
        client: asks the server.

    Attributes:
        client: as given.
    """

    def __init__(self, client: AsyncRewardClient) -> None:
        self.client = client
        self._workers = Workers()

    async def rewards(self, lines: Sequence[Line]) -> tuple[list[list[float]], ModelInfo | None]:
        """The rewards of each line, and the model that gave them.

        The model's usage is reduced to what rewards depend on: the format is the client's own, if
        it has one, and the calibration is left out.

        Raises:
            RewardError: as for `AsyncRewardClient.rank_many`, or `WorkerError`.
        """
        n_rows = sum(len(line.candidates) for line in lines)  # a group may have any number
        timeout_s = self.client.timeout_s * math.ceil(n_rows / MAX_ROWS)
        texts = [text for line in lines if (text := line.text) is not None]
        groups: list[Group] = []
        if len(texts) < len(lines):
            # a whole text has the same tokens as a candidate of the empty context
            texts, groups = [], [(line.context or "", line.candidates) for line in lines]
        scores = await self.client._rewards(  # noqa: SLF001  # public methods do not take rows
            "rank_many" if groups else "score",
            partial(self._encode, texts, groups),
            timeout_s,
            is_chat=any(is_chat(context) for context, _ in groups),
        )
        rewards, model = scores.rewards.tolist(), scores.model
        if model is not None:
            chat_format = self.client.chat_format or model.usage.chat_format
            model = replace(model, usage=Usage(chat_format, model.usage.max_tokens))
        if n_rows == len(lines):
            return [[reward] for reward in rewards], model
        rest = iter(rewards)
        return [list(islice(rest, len(line.candidates))) for line in lines], model

    async def aclose(self) -> None:
        """End the processes; the client stays open."""
        await self._workers.close()

    def _encode(self, texts: list[str], groups: list[Group], usage: Usage) -> Steps[list[Part]]:
        order = Order(texts, groups, self.client.truncation, usage)
        rows = yield Work(order.rows, elsewhere=partial(self._workers.rows, order))
        if rows is not None:
            return [rows]
        if texts:
            return (yield from encode_texts(texts, usage))
        return (yield from encode_groups(groups, order.truncation, "raise", 0, usage))
