"""The logic of both clients: everything but the waiting.

    text ──► token ids ──► requests ──► servers in turn ──► checked rewards ──► results

How text becomes ids depends on the model, and only the answer says which model gave it. If that
is not the model that was expected, and it reads text differently, it is asked again.

Methods are generators of `steps.Step`; see there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np

from reward_client import wire
from reward_client.asking import Asking
from reward_client.attempts import Answer, Attempts
from reward_client.blend import Weights, blended, checked_weights
from reward_client.connection import Retry
from reward_client.counters import Counters
from reward_client.encoding import (
    Group,
    Part,
    Turn,
    encode_group,
    encode_groups,
    encode_texts,
    has_chat,
    unscored,
)
from reward_client.endpoints import Endpoint, Endpoints
from reward_client.errors import (
    ContractError,
    InvalidInputError,
    NoFormatError,
    NonFiniteRewardError,
    ServerError,
)
from reward_client.introductions import Introductions
from reward_client.options import Options, Terms, Wishes
from reward_client.parts import RESCORES, Parts
from reward_client.results import ModelInfo, Ranking, Scores, ServerInfo
from reward_client.steps import Steps, Together
from reward_client.timing import timed
from reward_client.tracing import Span, span
from reward_text import Context, Encoded, Usage, is_chat

Encode: TypeAlias = Callable[[Usage], Steps[list[Part]]]
"""Makes the rows of a call for a model with this usage."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The outcome of a call's rows.

    Attributes:
        parts: the rows, as they were sent.
        scores: scores of all rows together.
        usage: the usage that the rows were made for.
    """

    parts: list[Part]
    scores: Scores
    usage: Usage


class Calls:
    """Both clients' methods, as steps.

    Args:
        urls: host and gRPC port, or several.
        options: what holds for all calls.
        counters: counts what is done; new ones if None.

    Attributes:
        endpoints: the servers.
        counters: what has been done so far.
    """

    def __init__(
        self, urls: str | Sequence[str], options: Options, counters: Counters | None = None
    ) -> None:
        self.options = options
        self.endpoints = Endpoints(urls)
        self._asking = Asking(options, self.endpoints, counters)
        self.counters = self._asking.counters
        self._of_others: dict[str, Calls] = {}
        self._introductions = Introductions(self._asking)
        self._attempts = Attempts(self._asking, self._introductions)
        self._parts = Parts(self.endpoints, self._introductions, self._attempts)

    def connect(self) -> Steps[ServerInfo]:
        """Check the first server that answers against the contract."""
        with self._call("connect") as current:
            return (yield from self._introduced(Terms.of(self.options, current), self._attempts))

    def is_ready(self, timeout_s: float | None) -> Steps[bool]:
        """Whether some server answers and keeps the contract, each asked once."""
        with self._call("is_ready") as current:
            terms = Terms.of(self.options, current, Wishes(timeout_s=timeout_s))
            asked = [self._is_ready(endpoint, terms) for endpoint in self.endpoints.all]
            return any((yield Together(asked)))

    def wait_until_ready(self, timeout_s: float) -> Steps[ServerInfo]:
        """Do what `connect` does, but wait for a server for as long as the time allows."""
        with self._call("wait_until_ready") as current:
            terms = Terms.of(self.options, current, Wishes(timeout_s=timeout_s))
            retry = replace(self.options.connection.retry or Retry(), attempts=None)
            patient = Attempts(self._asking, self._introductions, retry)
            return (yield from self._introduced(terms, patient))

    def _introduced(self, terms: Terms, attempts: Attempts) -> Steps[ServerInfo]:
        return attempts.until_served(terms, lambda one: self._introductions.anew(one, terms))

    def _is_ready(self, endpoint: Endpoint, terms: Terms) -> Steps[bool]:
        try:
            yield from self._introductions.anew(endpoint, terms)
        except ServerError:
            return False
        return True

    def score(self, texts: Sequence[str], wishes: Wishes) -> Steps[Scores]:
        """The reward of each text."""
        encode = partial(encode_texts, texts)
        return (yield from self.rewards("score", encode, wishes, is_chat=False))

    def rewards(
        self, method: str, encode: Encode, wishes: Wishes, *, is_chat: bool
    ) -> Steps[Scores]:
        """The reward of each row that `encode` makes, in a call of that name."""
        with self._call(method) as current:
            terms = Terms.of(self.options, current, wishes)
            return (yield from self._scored(encode, terms, is_chat=is_chat)).scores

    def rank(
        self,
        context: Context,
        candidates: Sequence[str],
        wishes: Wishes,
        models: Mapping[str, float] | None,
    ) -> Steps[Ranking]:
        """One group's candidates, best first, by the client's model or by several."""
        with self._call("rank") as current:
            terms = Terms.of(self.options, current, wishes)
            if models is None:
                return (yield from self._ranked(context, candidates, terms))
            return (yield from self._blended(context, candidates, terms, checked_weights(models)))

    def _ranked(self, context: Context, candidates: Sequence[str], terms: Terms) -> Steps[Ranking]:
        def encode(usage: Usage) -> Steps[list[Part]]:
            return [(yield from encode_group(context, candidates, terms.truncation, usage))]

        scored = yield from self._scored(encode, terms, is_chat=is_chat(context))
        return _ranking((context, candidates), scored, slice(None))

    def _blended(
        self, context: Context, candidates: Sequence[str], terms: Terms, weights: Weights
    ) -> Steps[Ranking]:
        """The blend of several models' rankings, which are asked for concurrently.

        Raises:
            ValueError: a version is pinned, and version numbers belong to one model.
        """
        if terms.version:
            raise ValueError(
                f"model_version {terms.version} belongs to one model, but {len(weights)} are "
                "asked; leave it out, or ask only that model"
            )
        asked = [self._named(name, context, candidates, terms) for name in weights]
        rankings: list[Ranking] = yield Together(asked)
        return blended(weights, dict(zip(weights, rankings, strict=True)))

    def _named(
        self, name: str, context: Context, candidates: Sequence[str], terms: Terms
    ) -> Steps[Ranking]:
        """The ranking by one of several models; errors that concern the model name it."""
        try:
            return (yield from self._of(name)._ranked(context, candidates, terms))  # noqa: SLF001  # another Calls
        except NoFormatError as error:
            raise NoFormatError(f"model {name!r}: {error}", row=error.row) from error
        except NonFiniteRewardError as error:
            raise NonFiniteRewardError(f"model {name!r}: {error}", rows=error.rows) from error

    def _of(self, model: str) -> "Calls":
        """Calls to another model on the same servers, with separate knowledge of each server."""
        if model == self.options.model:
            return self
        if model not in self._of_others:
            urls = [endpoint.url for endpoint in self.endpoints.all]
            options = replace(self.options, model=model, chat_format=None)  # it has its own
            calls = Calls(urls, options, self.counters)
            self._of_others.setdefault(model, calls)  # another thread may have been faster
        return self._of_others[model]

    def rank_many(self, groups: Sequence[Group], wishes: Wishes) -> Steps[list[Ranking]]:
        """The rankings of several groups, asked for together."""
        with self._call("rank_many") as current:
            terms = Terms.of(self.options, current, wishes)
            return (yield from self._rankings(groups, terms))

    def rank_each(self, index: int, group: Group, wishes: Wishes) -> Steps[tuple[int, Ranking]]:
        """The index and the ranking of one of many groups, each a separate call."""
        with self._call("rank_each") as current:
            terms = Terms.of(self.options, current, wishes)
            (ranking,) = yield from self._rankings([group], terms, index)
            return index, ranking

    @contextmanager
    def _call(self, method: str) -> Iterator[Span]:
        with timed(self.options.on_timing, "call", method), span(method) as current:
            yield current

    def _rankings(
        self, groups: Sequence[Group], terms: Terms, first: int = 0
    ) -> Steps[list[Ranking]]:
        encode = partial(encode_groups, groups, terms.truncation, terms.on_error, first)
        scored = yield from self._scored(encode, terms, is_chat=any(map(has_chat, groups)))
        rankings, start, turn = [], 0, Turn()
        for group, part in zip(groups, scored.parts, strict=True):
            if isinstance(part, InvalidInputError):
                rankings.append(unscored(group, part))
                continue
            rows = slice(start, start + len(part.ids))
            rankings.append(_ranking(group, scored, rows))
            start = rows.stop
            yield from turn.over()
        return rankings

    def _scored(self, encode: Encode, terms: Terms, *, is_chat: bool) -> Steps[Scored]:
        """Score all rows, in as many requests as they need, as the answering model reads them.

        Args:
            encode: makes the rows.
            terms: the call's.
            is_chat: whether the rows need a format of conversations.

        Raises:
            ContractError: models that read text differently answer in turn.
        """
        if is_chat and self.options.chat_format is None:
            model = yield from self._parts.model(terms)
            if model.usage.chat_format is None:  # what is known may be old: nothing would be sent
                model = yield from self._parts.newest_model(terms)
        else:
            model = self.endpoints.model(terms.version) or ModelInfo(0)
        usage, wanted = self._usage(model, is_chat=is_chat), None
        for _ in range(RESCORES):
            with span("tokenise", terms.span):
                parts = yield from encode(usage)
            rows = Encoded.concatenated([part for part in parts if isinstance(part, Encoded)])
            if not len(rows.ids):
                return Scored(parts, _scores([], rows), usage)
            terms.span.set("candidates", len(rows.ids))
            answers = yield from self._parts.answers(rows.ids, terms, wanted)
            served = self._usage(answers[0].model, is_chat=is_chat)
            if served == usage:
                return Scored(parts, self._checked(answers, rows, terms), usage)
            usage, wanted = served, answers[0].version
        raise ContractError(
            f"models that read texts differently answered {RESCORES} requests of one call "
            "in turn; pin one with model_version"
        )

    def _usage(self, model: ModelInfo, *, is_chat: bool) -> Usage:
        """The part of a model's usage that the rows of a call depend on."""
        usage = model.usage
        chat_format = (self.options.chat_format or usage.chat_format) if is_chat else None
        return Usage(chat_format, usage.max_tokens)

    def _checked(self, answers: Sequence[Answer], rows: Encoded, terms: Terms) -> Scores:
        scores = _scores(answers, rows)
        if terms.on_error == "raise":
            wire.check_finite(scores.rewards)
        else:
            scores.rewards[~np.isfinite(scores.rewards)] = np.nan
        self.counters.scored(rows)
        return scores


def _scores(answers: Sequence[Answer], rows: Encoded) -> Scores:
    model = answers[0].model if answers else None
    return Scores(
        np.concatenate([np.empty(0, np.float32), *(answer.rewards for answer in answers)]),
        model.version if model else None,
        rows.n_tokens,
        rows.n_truncated,
        rows.lengths,
        rows.is_cut,
        model,
    )


def _ranking(group: Group, scored: Scored, rows: slice) -> Ranking:
    context, candidates = group
    best_first = wire.ranked(candidates, scored.scores, rows)
    model = scored.scores.model if best_first else None
    chat_format = scored.usage.chat_format if is_chat(context) else None
    return Ranking(best_first, model.version if model else None, None, model, chat_format)
