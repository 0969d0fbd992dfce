"""Scores and classes in vLLM's protocol: `/score`, `/v1/score` and `/classify`.

Source: "Supported APIs" of vLLM's OpenAI-compatible server (Score API, Classification API).
"""

import time
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from reward_gateway.errors import UNPROCESSABLE, GatewayError
from reward_gateway.rerank import MAX_TEXTS

router = APIRouter(tags=["scores"])

Texts = str | Annotated[list[str], Field(min_length=1, max_length=MAX_TEXTS)]
LABEL = "LABEL_0"  # transformers' name for the only class of a head with one logit


class ScoreRequest(BaseModel):
    """Contexts and candidates: one of each, one context and many, or pairs."""

    model_config = ConfigDict(extra="forbid")
    contexts: Annotated[Texts, Field(validation_alias=AliasChoices("text_1", "queries", "data_1"))]
    candidates: Annotated[
        Texts, Field(validation_alias=AliasChoices("text_2", "documents", "items", "data_2"))
    ]
    model: str | None = None
    use_activation: Annotated[
        bool, Field(validation_alias=AliasChoices("use_activation", "activation"))
    ] = True


class ClassifyRequest(BaseModel):
    """Whole texts to classify."""

    model_config = ConfigDict(extra="forbid")
    input: Texts
    model: str | None = None
    use_activation: Annotated[
        bool, Field(validation_alias=AliasChoices("use_activation", "activation"))
    ] = True


@router.post("/v1/score")
@router.post("/score")
async def score(asked: ScoreRequest, request: Request) -> dict[str, Any]:
    """The probability of each candidate after its context, or its reward without activation."""
    candidates = [asked.candidates] if isinstance(asked.candidates, str) else asked.candidates
    contexts = [asked.contexts] if isinstance(asked.contexts, str) else asked.contexts
    if len(contexts) == 1:
        groups = [(contexts[0], candidates)]
    elif len(contexts) == len(candidates):
        groups = [(context, [one]) for context, one in zip(contexts, candidates, strict=True)]
    else:
        raise GatewayError(
            UNPROCESSABLE,
            f"text_1 has {len(contexts)} texts and text_2 has {len(candidates)}; give one text_1, "
            "or as many as there are in text_2",
            "InvalidInputError",
        )
    rankings = await request.state.service.client.rank_many(groups)
    found = [
        value
        for ranking in rankings
        for value in (ranking.probabilities if asked.use_activation else ranking.rewards).tolist()
    ]
    data = [{"index": index, "object": "score", "score": one} for index, one in enumerate(found)]
    n_tokens = sum(one.n_tokens for ranking in rankings for one in ranking)
    return _answer("score", data, n_tokens, request)


@router.post("/classify")
async def classify(asked: ClassifyRequest, request: Request) -> dict[str, Any]:
    """The one class of each text with its probability, or its reward without activation."""
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    scores = await request.state.service.client.score(texts)
    found = scores.probabilities if asked.use_activation else scores.rewards
    data = [
        {"index": index, "label": LABEL, "probs": [one], "num_classes": 1}
        for index, one in enumerate(found.tolist())
    ]
    return _answer("classify", data, scores.n_tokens, request)


def _answer(
    kind: str, data: list[dict[str, Any]], n_tokens: int, request: Request
) -> dict[str, Any]:
    return {
        "id": f"{kind}-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": request.state.service.settings.model,
        "data": data,
        "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens, "completion_tokens": 0},
    }
