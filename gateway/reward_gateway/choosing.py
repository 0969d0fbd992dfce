"""The best of the candidates that were drawn."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reward_client import Ranking, RewardError
from reward_contract.errors import NoFormatError
from reward_gateway.service import Service
from reward_gateway.settings import OnRewardFailure
from reward_text import Context


@dataclass(frozen=True, slots=True)
class Ranked:
    """A draw's choices, best first.

    Attributes:
        choices: each with `reward` and `probability`, which are None if it has no text, and
            `drawn`, its place among those drawn.
        ranking: of their distinct texts; None if they are not ranked.
        why_not: the reason why they are not ranked; None if they are.
    """

    choices: Sequence[dict[str, Any]]
    ranking: Ranking | None
    why_not: str | None

    def reaches(self, probability: float) -> bool:
        """Whether the best is good enough; choices that are not ranked count as good enough."""
        return self.ranking is None or self.ranking.best_above(probability) is not None


async def ranked(
    service: Service,
    context: Context,
    choices: Sequence[dict[str, Any]],
    on_failure: OnRewardFailure,
) -> Ranked:
    """The choices, best first; equal texts are scored once, and are adjacent.

    If the first choice calls tools, that is the generator's decision, which a model of replies
    cannot judge: the choices stay as drawn. Otherwise, those without text (refusals) come last.

    Raises:
        RewardError: there are no rewards, and `on_failure` is "error" or the model has no format.
    """
    if choices and _calls_tools(choices[0]):
        return _as_drawn(choices, "tool_calls")
    texts = [_text_of(choice) for choice in choices]
    if all(text is None for text in texts):
        return _as_drawn(choices, "no_text")
    distinct = list(dict.fromkeys(text for text in texts if text is not None))
    service.metrics.candidates.observe(len(distinct))
    began = time.perf_counter()
    try:
        ranking = await service.client.rank(context, distinct)
    except NoFormatError:
        raise  # a misconfigured gateway would otherwise never rank
    except RewardError as error:
        if on_failure == "error":
            raise
        return _as_drawn(choices, type(error).__name__)
    service.metrics.ranking.observe(time.perf_counter() - began)
    return Ranked(_ordered(choices, texts, ranking), ranking, None)


def _text_of(choice: Mapping[str, Any]) -> str | None:
    """The reply in a choice of either kind; None if it calls tools or refuses."""
    message = choice.get("message")
    if not isinstance(message, Mapping):
        text = choice.get("text")
    elif _calls_tools(choice):
        text = None
    else:
        text = message.get("content")
    if isinstance(text, list):
        parts = [part.get("text") for part in text if isinstance(part, Mapping)]
        text = "".join(part for part in parts if isinstance(part, str)) or None
    return text if isinstance(text, str) else None


def _calls_tools(choice: Mapping[str, Any]) -> bool:
    return bool((choice.get("message") or {}).get("tool_calls"))


def _ordered(
    choices: Sequence[dict[str, Any]], texts: Sequence[str | None], ranking: Ranking
) -> list[dict[str, Any]]:
    places = {one.text: rank for rank, one in enumerate(ranking)}
    last = len(places)
    order = sorted(
        range(len(choices)),
        key=lambda i: last if (text := texts[i]) is None else places[text],
    )
    return [_marked(choices[i], i, _found(texts[i], places, ranking)) for i in order]


def _found(
    text: str | None, places: Mapping[str, int], ranking: Ranking
) -> tuple[float | None, float | None]:
    if text is None:
        return None, None
    one = ranking[places[text]]
    return one.reward, one.probability


def _as_drawn(choices: Sequence[dict[str, Any]], why_not: str) -> Ranked:
    marked = [_marked(choice, place, (None, None)) for place, choice in enumerate(choices)]
    return Ranked(marked, None, why_not)


def _marked(
    choice: dict[str, Any], drawn: int, found: tuple[float | None, float | None]
) -> dict[str, Any]:
    reward, probability = found
    return {**choice, "reward": reward, "probability": probability, "drawn": drawn}
