"""A finished answer as the stream of events that OpenAI's clients expect."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

OWN_OF_CHOICE = ("reward", "probability", "drawn")


def events(answer: Mapping[str, Any], *, is_chat: bool, with_usage: bool) -> Iterator[str]:
    """Server-sent events: each choice in one piece, why it ended, and how it was chosen."""
    common = {name: value for name, value in answer.items() if name not in ("choices", "usage")}
    if is_chat:
        common["object"] = "chat.completion.chunk"
    own = common.pop("best_of_n", None)
    for choice in answer["choices"]:
        for piece in _pieces(choice) if is_chat else [choice]:
            yield _event({**common, "choices": [piece], "best_of_n": own})
    if with_usage:
        yield _event({**common, "choices": [], "usage": answer.get("usage")})
    yield "data: [DONE]\n\n"


def _pieces(choice: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The message, and then why it ended."""
    delta = dict(choice.get("message") or {})
    if calls := delta.get("tool_calls"):
        delta["tool_calls"] = [{"index": index, **call} for index, call in enumerate(calls)]
    own = {name: choice[name] for name in OWN_OF_CHOICE if name in choice}
    piece = {"index": choice["index"], "logprobs": choice.get("logprobs"), **own}
    yield {**piece, "delta": delta, "finish_reason": None}
    yield {**piece, "logprobs": None, "delta": {}, "finish_reason": choice.get("finish_reason")}


def _event(content: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(content, allow_nan=False)}\n\n"  # ASCII: may hold lone surrogates
