"""A chat backend that answers each conversation with the best of N replies.

    pip install gpt2-reward fastapi openai uvicorn
    export GENERATOR_URL=http://localhost:8080/v1 GENERATOR_MODEL=my-model REWARD_URL=localhost:8001
    uvicorn --app-dir examples chat_backend:app

    curl localhost:8000/chat --json '{"messages": [{"role": "user", "content": "Hello!"}]}'

Both clients live as long as the application and are shared by all requests. While the reward server
is down or too slow, users get the generator's first reply instead of an error.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, HTTPException, Request
from openai import AsyncOpenAI
from pydantic import BaseModel, Field

from reward_client import (
    AsyncRewardClient,
    DeadlineError,
    ModelNotReadyError,
    RewardError,
    UnavailableError,
)

N_CANDIDATES = int(os.environ.get("N_CANDIDATES", "4"))
MOST_TOKENS = 512  # of a reply, whatever is asked for
REWARD_TIMEOUT_S = float(os.environ.get("REWARD_TIMEOUT_S", "2"))

log = logging.getLogger("uvicorn.error")


class Message(BaseModel):
    """One turn of a conversation."""

    role: Literal["user", "assistant"]
    content: str


class Chat(BaseModel):
    """A conversation that waits for a reply."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] = 64


class Reply(BaseModel):
    """The chosen reply. `probability` of acceptance is null if no reward came."""

    content: str
    probability: float | None
    n_candidates: int


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """The clients. Connecting at the start detects a server with another contract at once."""
    rewards = AsyncRewardClient(
        os.environ.get("REWARD_URL", "localhost:8001"), timeout_s=REWARD_TIMEOUT_S
    )
    generator = AsyncOpenAI(
        base_url=os.environ["GENERATOR_URL"], api_key=os.environ.get("GENERATOR_KEY", "none")
    )
    try:
        await connect(rewards)
        yield {"generator": generator, "rewards": rewards}
    finally:
        await rewards.close()
        await generator.close()


async def connect(rewards: AsyncRewardClient) -> None:
    """Ask the server what it serves. If it is down, each later call tries again."""
    try:
        await rewards.connect()
    except (UnavailableError, DeadlineError, ModelNotReadyError) as error:
        log.warning("starting without rewards: %s", error)


app = FastAPI(title="Best of N", lifespan=lifespan)


def generator_of(request: Request) -> AsyncOpenAI:
    """The client of the generator."""
    return request.state.generator


def rewards_of(request: Request) -> AsyncRewardClient:
    """The client of the reward model."""
    return request.state.rewards


async def draw(generator: AsyncOpenAI, messages: list[Any], max_tokens: int) -> str:
    """One candidate, in a request of its own: not every server supports OpenAI's `n`."""
    answer = await generator.chat.completions.create(
        model=os.environ["GENERATOR_MODEL"],
        messages=messages,
        max_tokens=max_tokens,
        temperature=1.0,  # candidates that are all alike leave nothing to choose
    )
    return answer.choices[0].message.content or ""


@app.post("/chat")
async def reply_to(
    chat: Chat,
    generator: Annotated[AsyncOpenAI, Depends(generator_of)],
    rewards: Annotated[AsyncRewardClient, Depends(rewards_of)],
) -> Reply:
    """Draw candidates in parallel, rank them, and answer with the best one."""
    messages = [message.model_dump() for message in chat.messages]
    draws = [draw(generator, messages, chat.max_tokens) for _ in range(N_CANDIDATES)]
    drawn = await asyncio.gather(*draws, return_exceptions=True)
    candidates = [one for one in drawn if isinstance(one, str)]
    if not candidates:
        log.error("none of %d candidates could be drawn: %r", len(drawn), drawn[0])
        raise HTTPException(502, "the generator does not answer")
    try:
        best = (await rewards.rank(messages, candidates)).best
    except RewardError as error:
        log.warning("answering the first of %d candidates: %s", len(candidates), error)
        return Reply(content=candidates[0], probability=None, n_candidates=len(candidates))
    return Reply(content=best.text, probability=best.probability, n_candidates=len(candidates))
