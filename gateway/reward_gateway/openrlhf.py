"""OpenRLHF's remote reward protocol: `--reward.remote_url http://host:5000/get_reward`.

    POST /get_reward   {"query": [text, ...], "prompts": [text, ...], "labels": [label, ...]}
                    -> {"rewards": [float, ...], "scores": [...], "extra_logs": {...}}

`query` is the whole text, prompt and response, in the policy's own chat template. If a label has
the messages of the prompt, they are rendered in the reward model's format, and the response is
scored as their reply. Otherwise the query is scored unchanged.
Source: `openrlhf/cli/serve_rm.py` and `openrlhf/utils/agent.py` of OpenRLHF 0.11.2.
"""

import asyncio
import json
from bisect import bisect_left
from collections.abc import Iterator
from typing import TypeAlias, TypeGuard

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from reward_client import InvalidInputError
from reward_text import Context, context_of

router = APIRouter(tags=["training"])

# what chat templates end a message with; OpenRLHF leaves it in the decoded response
ENDS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end|>",
    "<end_of_turn>",
    "</s>",
    "<eos>",
)

LEAST_KEPT = 16  # characters of a prompt; fewer may be in a query by chance

Item: TypeAlias = tuple[list[str], Context]
"""Candidates and their context."""


@router.post("/get_reward")
async def get_reward(request: Request) -> JSONResponse:
    """The rewards of `query`: of whole texts, or of replies to the messages in `labels`."""
    batcher = request.state.service.batcher
    asked = _items(await request.body())
    found = await asyncio.gather(*(batcher.rewards(*item) for item in asked))
    rewards = [reward for some in found for reward in some]
    return JSONResponse({"rewards": rewards, "scores": rewards, "extra_logs": {}})


def _items(body: bytes) -> list[Item]:
    """What to score, in the order of `query`.

    Raises:
        InvalidInputError: the body is wrong.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("the body is not JSON") from error
    fields = content if isinstance(content, dict) else {}
    queries, labels = fields.get("query"), fields.get("labels")
    if not _is_texts(queries):
        raise InvalidInputError('"query" must be a list of texts')
    if not isinstance(labels, list) or not any(map(_is_chat, labels)):
        return [(queries, "")]
    prompts = fields.get("prompts")
    if not _is_texts(prompts) or not len(prompts) == len(labels) == len(queries):
        raise InvalidInputError(
            'some "labels" have messages, so "prompts" must be texts, and there must be '
            f"{len(queries)} of both, one for each query"
        )
    return [*_replies(queries, prompts, labels)]


def _replies(queries: list[str], prompts: list[str], labels: list[object]) -> Iterator[Item]:
    for index, (query, prompt, label) in enumerate(zip(queries, prompts, labels, strict=True)):
        if not _is_chat(label):
            yield [query], ""
            continue
        try:
            reply = _response(query, prompt)
            context = context_of(label if isinstance(label, dict) else {"messages": label})
        except InvalidInputError as error:
            raise InvalidInputError(f"query {index}: {error}", row=index) from error
        yield [reply], context


def _response(query: str, prompt: str) -> str:
    """What the policy wrote: the query without its prompt and the template's end of message.

    OpenRLHF cuts prompts that are too long on the left, and some tokenizers do not restore all
    spaces, so only the end of a prompt is certain to be there.

    Raises:
        InvalidInputError: too little of the prompt is there.
    """
    if query.startswith(prompt):
        reply = query.removeprefix(prompt)
    else:
        starts = range(len(prompt))
        kept = prompt[bisect_left(starts, True, key=lambda start: prompt[start:] in query) :]
        if len(kept) < LEAST_KEPT:
            raise InvalidInputError("it does not contain its prompt, so its response is unknown")
        reply = query.rpartition(kept)[2]
    for end in ENDS:
        reply = reply.partition(end)[0]
    return reply


def _is_texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _is_chat(label: object) -> bool:
    """Whether a label has messages: as a list, or in an object with names, persona and prompt."""
    if isinstance(label, dict):
        return label.get("messages") is not None
    return isinstance(label, list) and any(isinstance(one, dict) and "role" in one for one in label)
