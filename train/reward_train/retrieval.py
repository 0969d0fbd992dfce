"""Token embeddings that tell which reply belongs to which context: what a small model starts from.

Context and reply are bags of tokens; the reply has to be found among those of the other pairs
of the batch. This takes minutes on a CPU; a transformer would need days to learn the same.

Source: the loss of Henderson et al., "Efficient Natural Language Response Suggestion for
Smart Reply" (2017), with StarSpace's shared bags of embeddings (Wu et al., 2017).
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch.nn import functional

BATCH = 256  # pairs; each reply is told apart from 255 others
CONTEXT_TOKENS, REPLY_TOKENS = 48, 32  # the last of a context, the first of a reply
DECAY = 0.97  # of a token's weight, for each token that follows it in the context
LEARNING_RATE, EPOCH_DECAY = 3e-3, 0.7
START_STD = 0.1

Pair = tuple[Sequence[int], Sequence[int]]
"""Token ids of a context and of its reply, neither empty."""

Say = Callable[[str], None]


def retrieval_embeddings(
    pairs: Sequence[Pair], size: tuple[int, int], *, epochs: int, seed: int, say: Say
) -> torch.Tensor:
    """Embeddings whose bags are alike for a context and its reply.

    Args:
        pairs: at least two; a last batch that is not full is left out, unless it is the only one.
        size: number of token ids, and size of an embedding.
        epochs: passes over all pairs.
        seed: of the initial embeddings and the order.
        say: gets a line per epoch.

    Returns:
        float32 [vocabulary, size].
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        table = torch.nn.Parameter(torch.randn(size) * START_STD)
        favour = torch.nn.Parameter(torch.zeros(size[1]))  # replies that suit any context
        optimizer = torch.optim.Adam([table, favour], lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, EPOCH_DECAY)
        for epoch in range(epochs):
            losses = []
            for batch in _batches(pairs):
                contexts, replies = _bags(table, batch)
                scores = contexts @ replies.T + replies @ favour  # [batch, batch]
                loss = functional.cross_entropy(scores, torch.arange(len(batch)))
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                losses.append(loss.item())
            schedule.step()
            mean = sum(losses) / len(losses)
            say(f"embeddings, epoch {epoch + 1} of {epochs}: loss {mean:.3f}")
    return table.detach()


def _batches(pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    """All pairs in a random order, full batches only."""
    size = min(BATCH, len(pairs))
    order = torch.randperm(len(pairs))[: len(pairs) // size * size]
    for places in order.reshape(-1, size):
        yield [pairs[place] for place in places.tolist()]


def _bags(table: torch.Tensor, pairs: Sequence[Pair]) -> tuple[torch.Tensor, torch.Tensor]:
    """Contexts and replies, float [n, n_embd] each."""
    contexts = [context[-CONTEXT_TOKENS:] for context, _ in pairs]
    replies = [reply[:REPLY_TOKENS] for _, reply in pairs]
    weights = [[DECAY**age for age in reversed(range(len(bag)))] for bag in contexts]
    return _bag(table, contexts, weights), _bag(table, replies, [[1.0] * len(r) for r in replies])


def _bag(
    table: torch.Tensor, bags: Sequence[Sequence[int]], weights: Sequence[Sequence[float]]
) -> torch.Tensor:
    """Weighted sums over the root of the bag's size, so that long bags do not outweigh others."""
    lengths = torch.tensor([len(bag) for bag in bags])
    sums = functional.embedding_bag(
        torch.tensor([token for bag in bags for token in bag]),
        table,
        lengths.cumsum(0) - lengths,
        mode="sum",
        per_sample_weights=torch.tensor([one for bag in weights for one in bag]),
    )
    return sums / lengths[:, None] ** 0.5
