"""Reranking in the protocols of Cohere, Jina and TEI.

The query is the context: a text, or messages, which are rendered in the model's format. Documents
are the candidates. The relevance of a candidate is its probability of acceptance; `raw_scores`
gives rewards instead. Options of a protocol that are not supported here are refused.

Sources: the API references of Cohere (`/v1/rerank`, `/v2/rerank`), Jina (`/v1/rerank`) and Hugging
Face's text-embeddings-inference (`/rerank`).
"""

import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from reward_client import Ranking
from reward_gateway.errors import UNPROCESSABLE, GatewayError

MAX_TEXTS = 10_000  # in one request; more would hold up the event loop for others

router = APIRouter(tags=["reranking"])

Query = str | list[dict[str, Any]]


class Document(BaseModel):
    """A candidate in an object, as Cohere's first version and Jina allow."""

    model_config = ConfigDict(extra="forbid")
    text: str


class RerankRequest(BaseModel):
    """What Cohere's and Jina's clients send."""

    model_config = ConfigDict(extra="forbid")
    query: Query
    documents: Annotated[Sequence[str | Document], Field(min_length=1, max_length=MAX_TEXTS)]
    model: str | None = None
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool | None = None
    raw_scores: bool = False


class CohereV1Request(RerankRequest):
    """What Cohere's first version sends: also the fields of documents to read, only `text` here."""

    rank_fields: list[Literal["text"]] | None = None


class CohereV2Request(RerankRequest):
    """What Cohere's second version sends: texts only, which are returned if a client still asks."""

    documents: Annotated[Sequence[str], Field(min_length=1, max_length=MAX_TEXTS)]


class TeiRequest(BaseModel):
    """What text-embeddings-inference takes, and `model` and `top_n` as its clients send them."""

    model_config = ConfigDict(extra="forbid")
    query: Query
    texts: Annotated[list[str], Field(min_length=1, max_length=MAX_TEXTS)]
    raw_scores: bool = False
    return_text: bool = False
    truncate: bool | None = None
    truncation_direction: Literal["left", "Left"] = "left"
    model: str | None = None
    top_n: Annotated[int, Field(ge=1)] | None = None


def _protocol(body: Any) -> str:  # noqa: ANN401  # JSON
    return "tei" if isinstance(body, dict) and "texts" in body else "cohere"


Unversioned = Annotated[
    Annotated[TeiRequest, Tag("tei")] | Annotated[RerankRequest, Tag("cohere")],
    Discriminator(_protocol),
]


@router.post("/v1/rerank")
async def rerank_v1(asked: CohereV1Request, request: Request) -> dict[str, Any]:
    """Rerank for Cohere's first version and Jina, which share a path: the answer suits both."""
    is_wanted = asked.return_documents is not False
    return await _reranked(asked, request, with_documents=is_wanted, version="1")


@router.post("/v2/rerank")
async def rerank_v2(asked: CohereV2Request, request: Request) -> dict[str, Any]:
    """Rerank for Cohere's second version."""
    is_wanted = asked.return_documents is True
    return await _reranked(asked, request, with_documents=is_wanted, version="2")


@router.post("/rerank")
async def rerank(asked: Unversioned, request: Request) -> list[dict[str, Any]] | dict[str, Any]:
    """Rerank for TEI if there are `texts`, for Cohere and Jina if there are `documents`."""
    if isinstance(asked, RerankRequest):
        is_wanted = asked.return_documents is not False
        return await _reranked(asked, request, with_documents=is_wanted, version="1")
    if asked.truncate is False:
        raise GatewayError(
            UNPROCESSABLE,
            "truncate=false is not supported: long texts are always cut on the left; leave it out",
            "InvalidInputError",
        )
    ranking = await request.state.service.client.rank(asked.query, asked.texts)
    return [
        {"index": one.index, "score": one.reward if asked.raw_scores else one.probability}
        | ({"text": one.text} if asked.return_text else {})
        for one in ranking.candidates[: asked.top_n]
    ]


async def _reranked(
    asked: RerankRequest, request: Request, *, with_documents: bool, version: str
) -> dict[str, Any]:
    documents = [one if isinstance(one, str) else one.text for one in asked.documents]
    ranking: Ranking = await request.state.service.client.rank(asked.query, documents)
    n_tokens = sum(one.n_tokens for one in ranking)
    results = [
        {
            "index": one.index,
            "relevance_score": one.reward if asked.raw_scores else one.probability,
        }
        | ({"document": {"text": one.text}} if with_documents else {})
        for one in ranking.candidates[: asked.top_n]
    ]
    return {
        "id": str(uuid.uuid4()),
        "model": model_name(request, ranking),
        "object": "list",
        "results": results,
        "usage": {"total_tokens": n_tokens, "prompt_tokens": n_tokens},
        "meta": {"api_version": {"version": version}, "billed_units": {"search_units": 1}},
    }


def model_name(request: Request, ranking: Ranking) -> str:
    """The model that answered, with its version."""
    name: str = request.state.service.settings.model
    return name if ranking.model_version is None else f"{name}/{ranking.model_version}"
