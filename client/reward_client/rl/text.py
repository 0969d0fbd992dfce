"""Trainers' messages and pairs as the groups that the client scores."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from reward_client.encoding import Group
from reward_client.errors import InvalidInputError
from reward_client.results import Ranking
from reward_text import FORMATS, Context

Messages: TypeAlias = Sequence[Mapping[str, object]]
"""A conversation as chat templates take it: a sequence of `{"role": ..., "content": ...}`."""


def completion_text(rendered: str) -> str:
    r"""A rendered completion as a candidate: without the line break after its last message.

    Training rows end with the last word of the reply, and the reward is read at the last
    token: a line break there would be another token, with another reward.

    Example:
        >>> completion_text("Fine.\n")
        'Fine.'
    """
    return rendered.removesuffix("\n").removesuffix("\r")


def reply_of(completion: Messages) -> str:
    """The reply in a conversational completion: the text of its only message.

    Raises:
        InvalidInputError: it has several messages, such as tool calls, or no text.
    """
    if len(completion) != 1:
        raise InvalidInputError(
            f"a completion has {len(completion)} messages, but a reply is one; pass a `render` "
            "function that turns a list of messages into one text"
        )
    return FORMATS["verbatim"].context(completion)


def in_groups(contexts: Sequence[Context], candidates: Sequence[str]) -> list[Group]:
    """Pairs as groups: adjacent pairs with the same context share one.

    Trainers repeat a prompt for each of its completions; a group tokenises it once.

    Raises:
        InvalidInputError: the lengths differ.
    """
    if len(contexts) != len(candidates):
        raise InvalidInputError(
            f"{len(contexts)} prompts and {len(candidates)} completions do not make pairs"
        )
    groups: list[tuple[Context, list[str]]] = []
    for context, candidate in zip(contexts, candidates, strict=True):
        if not groups or groups[-1][0] != context:
            groups.append((context, []))
        groups[-1][1].append(candidate)
    return list(groups)


def in_input_order(rankings: Sequence[Ranking]) -> list[float]:
    """The rewards of the pairs that `in_groups` was given, in their order."""
    return [
        candidate.reward
        for ranking in rankings
        for candidate in sorted(ranking, key=lambda candidate: candidate.index)
    ]
