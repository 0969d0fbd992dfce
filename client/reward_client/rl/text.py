"""Messages and pairs of trainers as the groups that the client scores."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from reward_client.encoding import Group
from reward_client.errors import InvalidInputError
from reward_client.results import Ranking

Messages: TypeAlias = Sequence[Mapping[str, object]]
"""A conversation as chat templates take it: `{"role": ..., "content": ...}` each."""


def one_message_a_line(messages: Messages) -> str:
    r"""The contents of messages, a line break behind each; roles are left out.

    That is how a text reads whose turns stand on lines of their own. A model that was
    trained on names or markers in front of the turns needs a function of your own instead.

    Raises:
        InvalidInputError: a message has no text.

    Example:
        >>> one_message_a_line([{"role": "user", "content": "Hi"}])
        'Hi\n'
    """
    return "".join(f"{_content(message)}\n" for message in messages)


def completion_text(rendered: str) -> str:
    r"""A rendered completion as a candidate: without the line break after its last message.

    Training rows end with the last word of the reply, and the reward is read at the last
    token: a line break there is another token, and another reward.

    Example:
        >>> completion_text("Fine.\n")
        'Fine.'
    """
    return rendered.removesuffix("\n").removesuffix("\r")


def _content(message: Mapping[str, object]) -> str:
    content = message.get("content")
    if isinstance(content, Sequence) and not isinstance(content, str):  # parts; images have none
        texts = [part.get("text") for part in content if isinstance(part, Mapping)]
        content = "".join(text for text in texts if isinstance(text, str))
    if not isinstance(content, str):
        raise InvalidInputError(
            f'a message has no text, but {type(content).__name__}, as its "content"; give a '
            "`render` function that makes one text of a list of messages"
        )
    return content


def in_groups(contexts: Sequence[str], candidates: Sequence[str]) -> list[Group]:
    """Pairs as groups, those of the same context that stand next to each other together.

    Trainers repeat a prompt for each of its completions; a group tokenises it once.

    Raises:
        InvalidInputError: the lengths differ.
    """
    if len(contexts) != len(candidates):
        raise InvalidInputError(
            f"{len(contexts)} prompts and {len(candidates)} completions do not make pairs"
        )
    groups: list[tuple[str, list[str]]] = []
    for context, candidate in zip(contexts, candidates, strict=True):
        if not groups or groups[-1][0] != context:
            groups.append((context, []))
        groups[-1][1].append(candidate)
    return list(groups)


def in_input_order(rankings: Sequence[Ranking]) -> list[float]:
    """The rewards of `in_groups`' pairs, pair by pair."""
    return [
        candidate.reward
        for ranking in rankings
        for candidate in sorted(ranking, key=lambda candidate: candidate.index)
    ]
