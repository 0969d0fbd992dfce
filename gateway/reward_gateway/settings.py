"""The settings of a gateway, which are given once, at its start."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from reward_contract import MODEL_NAME

OnRewardFailure: TypeAlias = Literal["first", "error"]
"""What a caller gets when no reward comes: the first candidate, or an error."""

Drawing: TypeAlias = Literal["auto", "n", "parallel"]
"""How N candidates are drawn: with the generator's own `n`, or with N requests at once; `auto`
draws with `n`, and draws any that are missing with requests."""

SAMPLING: dict[str, Mapping[str, object]] = {
    "chai": {
        "temperature": 0.72,
        "top_p": 0.725,
        "repetition_penalty": 1.13125,
        "max_tokens": 64,
        "stop": ["\n"],
    }
}
"""Sampling parameters by the name of the preset, as the reward model's card has them.

Source: the card's generation example (token 198, where it stops, is the line break). Its `top_k` of
0 means no limit, which is what generators do if it is not given.
"""


MAX_N = 64  # candidates of a request


@dataclass(frozen=True, slots=True)
class Choosing:
    """How the best of several candidates is found.

    Attributes:
        n: candidates that are drawn per request.
        drawing: how they are drawn.
        sampling: parameters of requests that do not set their own.
        min_probability: draw a second time if no candidate's probability of acceptance reaches
            it; None draws only once.
        time_budget_s: rank what has come within this many seconds; None waits for all. Each
            candidate is then a request of its own, whatever `drawing` says.
        on_reward_failure: what a caller gets when no reward comes.
    """

    n: int = 4
    drawing: Drawing = "auto"
    sampling: Mapping[str, object] = field(default_factory=dict)
    min_probability: float | None = None
    time_budget_s: float | None = None
    on_reward_failure: OnRewardFailure = "first"


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a gateway, which are given once, at its start.

    Attributes:
        model: name of the reward model.
        upstream: base URL of the generator, such as `http://generator:8000/v1`; None without one.
        upstream_key: sent to the generator instead of the caller's key; None passes on the
            caller's, or none if the gateway has `api_keys` of its own.
        choosing: how candidates are drawn and chosen, unless a request overrides it.
        max_n: the most candidates that a request may ask for.
        timeout_s: seconds until a request is answered with 504.
        api_keys: a caller has to send one of these; if empty, none is required.
        max_body_bytes: of a request.
        max_requests: at the same time; more are answered with 429.
        cors_origins: web pages of these origins may send requests.
    """

    model: str = MODEL_NAME
    upstream: str | None = None
    upstream_key: str | None = field(default=None, repr=False)
    choosing: Choosing = field(default_factory=Choosing)
    max_n: int = MAX_N
    timeout_s: float = 60.0
    api_keys: frozenset[str] = field(default=frozenset(), repr=False)
    max_body_bytes: int = 8 << 20
    max_requests: int = 256
    cors_origins: tuple[str, ...] = ()
