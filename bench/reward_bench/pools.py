"""Token ids that the load generator sends: real chats, bulk work, and known shares of prefix."""

import numpy as np
from numpy.typing import NDArray

from reward_bench.texts import N_CANDIDATES, bulk_texts, long_groups, short_groups
from reward_bench.workloads import n_unique
from reward_client import CONTRACT, Tokenizer

Ids = NDArray[np.int32]
SHARES = (0.0, 0.25, 0.5, 0.75, 0.9)
BATCH_SIZES = (1, 2, 4, 8, 16, 32)

DESCRIPTIONS = {
    "short": "best-of-8 after six turns of a real chat; rows padded to 256, as the client does",
    "long": "best-of-8 after a real chat of more than 256 tokens, cut on the left: nothing shared",
    "bulk": "16 real texts per request, unlike each other",
    "alike": "those of many requests as in short whose number of tokens that differ is nearest the "
    "median, so that all cost about the same",
}


def chat_pools(n_requests: int, seed: int) -> dict[str, list[Ids]]:
    """Requests of int32 ids [B, 256] by regime, the same for the same seed."""
    tokenizer = Tokenizer()
    long = [tokenizer.encode_group(*group).ids for group in long_groups(n_requests, seed)]
    return {
        "short": [tokenizer.encode_group(*group).ids for group in short_groups(n_requests, seed)],
        "long": long,
        "bulk": [tokenizer.encode_rows(texts) for texts in bulk_texts(n_requests, seed)],
    }


def best_of_pool(n_candidates: int, n_requests: int, seed: int) -> list[Ids]:
    """Requests as in "short", with `n_candidates` each."""
    tokenizer = Tokenizer()
    groups = short_groups(n_requests, seed, n_candidates)
    return [tokenizer.encode_group(*group).ids for group in groups]


def alike_pool(n_requests: int, seed: int) -> list[Ids]:
    """Requests as in "short" that cost about the same, so that latencies differ by waiting only."""
    requests = best_of_pool(N_CANDIDATES, 8 * n_requests, seed)
    costs = np.array([n_unique([row[row != CONTRACT.pad_token_id] for row in r]) for r in requests])
    nearest = np.argsort(np.abs(costs - np.median(costs)), kind="stable")[:n_requests]
    return [requests[i] for i in sorted(nearest)]


def sharing_pool(share: float, n_requests: int, seed: int) -> list[Ids]:
    """Groups of full rows that begin with a prefix of the group's, this share of their tokens."""
    rng = np.random.default_rng(seed)
    n_shared = round(share * CONTRACT.max_tokens)
    requests = []
    for _ in range(n_requests):
        ids = rng.integers(0, CONTRACT.pad_token_id, (N_CANDIDATES, CONTRACT.max_tokens))
        ids[:, :n_shared] = ids[0, :n_shared]
        requests.append(ids.astype(np.int32))
    return requests


def rows_pool(n_rows: int, n_requests: int, seed: int) -> list[Ids]:
    """Requests of this many full rows, nothing shared."""
    rng = np.random.default_rng(seed)
    shape = (n_rows, CONTRACT.max_tokens)
    return [
        rng.integers(0, CONTRACT.pad_token_id, shape).astype(np.int32) for _ in range(n_requests)
    ]
