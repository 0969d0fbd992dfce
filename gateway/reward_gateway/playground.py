"""A page that shows what the model read, and the routes behind it."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import FileResponse

from reward_client import Ranking
from reward_gateway.service import Service
from reward_gateway.settings import MAX_N
from reward_text import Context, Tokenizer, Truncation, Usage

router = APIRouter(tags=["playground"])

PAGE = Path(__file__).parent / "static" / "index.html"
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class ShowRequest(BaseModel):
    """A group to rank and show."""

    model_config = ConfigDict(extra="forbid")
    context: str | list[dict[str, Any]]
    candidates: Annotated[list[str], Field(min_length=1, max_length=MAX_N)]


@router.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """The page; it loads nothing from other hosts, and may send them nothing."""
    return FileResponse(PAGE, headers={"content-security-policy": POLICY})


@router.get("/playground/setup")
async def setup(request: Request) -> dict[str, bool | int]:
    """What the page can offer: whether candidates can be drawn, and how many at most."""
    settings = request.state.service.settings
    return {"has_generator": settings.upstream is not None, "max_n": settings.max_n}


@router.post("/playground/rank")
async def show(asked: ShowRequest, request: Request) -> dict[str, Any]:
    """Candidates ranked under both truncation policies, and how much of the context was read."""
    service: Service = request.state.service
    shown, ranking = {}, None
    for truncation in get_args(Truncation):
        began = time.perf_counter()
        ranking = await service.client.rank(asked.context, asked.candidates, truncation=truncation)
        milliseconds = 1e3 * (time.perf_counter() - began)
        shown[truncation] = {
            "milliseconds": round(milliseconds, 1),
            "candidates": _candidates(asked.context, asked.candidates, ranking, truncation),
        }
    assert ranking is not None  # noqa: S101  # there is a policy
    usage = _usage(ranking)
    text, _ = usage.texts(asked.context, asked.candidates)
    return {"context": text, "truncation": shown, "model": _model(service, ranking, usage)}


def _model(service: Service, ranking: Ranking, usage: Usage) -> dict[str, Any]:
    return {
        "name": service.settings.model,
        "version": ranking.model_version,
        "identity": ranking.model.identity if ranking.model else None,
        "chat_format": ranking.chat_format.name if ranking.chat_format else None,
        "max_tokens": usage.max_tokens,
    }


def _usage(ranking: Ranking) -> Usage:
    """How the model was asked: in the gateway's own format, if it has one."""
    usage = ranking.model.usage if ranking.model else Usage()
    return replace(usage, chat_format=ranking.chat_format)


def _candidates(
    context: Context, candidates: list[str], ranking: Ranking, truncation: Truncation
) -> list[dict[str, Any]]:
    """Best first; `n_cut` characters of the context were not read for the candidate."""
    usage = _usage(ranking)
    text, replies = usage.texts(context, candidates)
    tokenizer = Tokenizer(usage.max_tokens)
    encoded = tokenizer.encode_group(text, replies, truncation)
    whole = text.encode()
    shown = []
    for one in ranking:
        reply = replies[one.index].encode()
        read = tokenizer.n_bytes(encoded.ids[one.index][: encoded.lengths[one.index]])
        n_cut_bytes = max(len(whole) + len(reply) - read, 0)
        shown.append(
            {
                "index": one.index,
                "text": one.text,
                "reward": one.reward,
                "probability": one.probability,
                "n_tokens": one.n_tokens,
                "n_cut": len(whole[:n_cut_bytes].decode(errors="ignore")),
            }
        )
    return shown
