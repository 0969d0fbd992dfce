"""OpenRLHF's remote reward protocol: `--reward.remote_url http://host:5000/get_reward`.

    POST /get_reward   {"query": [text, ...], "prompts": [...], "labels": [...]}
                    -> {"rewards": [float, ...], "scores": [...], "extra_logs": {...}}

`query` is the whole text, prompt and response; `prompts` and `labels` are ignored.
Source: `openrlhf/cli/serve_rm.py` and `openrlhf/utils/agent.py` of OpenRLHF 0.11.2.
"""

import json

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from reward_client import InvalidInputError

router = APIRouter(tags=["training"])


@router.post("/get_reward")
async def get_reward(request: Request) -> JSONResponse:
    """The rewards of `query`, each a whole text."""
    rewards = await request.state.service.batcher.rewards(_query(await request.body()))
    return JSONResponse({"rewards": rewards, "scores": rewards, "extra_logs": {}})


def _query(body: bytes) -> list[str]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("the body is not JSON") from error
    query = content.get("query") if isinstance(content, dict) else None
    if not isinstance(query, list) or not all(isinstance(text, str) for text in query):
        raise InvalidInputError('"query" must be a list of texts')
    return query
