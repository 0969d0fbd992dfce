"""A packed row gets the logit it gets by itself."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config

from reward_contract import CONTRACT
from reward_train.model import PackedClassifier
from reward_train.packing import NO_LABEL, PrefixTree, collate, token_labels

PAD = CONTRACT.pad_token_id
TOKENS = st.sampled_from([7, 8, 9, PAD])
ROWS = st.lists(st.lists(TOKENS, max_size=9), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def model() -> PackedClassifier:
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_head=2, n_embd=16, num_labels=1, pad_token_id=PAD)
    model = PackedClassifier(config).eval()
    model.set_attn_implementation("eager")
    return model


def item(rows: list[list[int]], labels: list[float] | None = None) -> dict[str, list[float]]:
    tree = PrefixTree()
    for row in rows:
        tree.add(row)
    labels = labels or [1.0] * len(rows)
    return {
        "input_ids": tree.input_ids,
        "parents": tree.parents,
        "scored": tree.scored,
        "labels": labels,
        "token_labels": token_labels(tree, labels, [1] * len(rows)),
    }


@settings(max_examples=60)
@given(st.lists(ROWS, min_size=1, max_size=3))
def test_packed_rows_get_the_logits_of_plain_ones(
    model: PackedClassifier, groups: list[list[list[int]]]
) -> None:
    with torch.no_grad():
        packed = model(**collate([item(rows) for rows in groups])).logits
        plain = super(PackedClassifier, model).forward
        for g, rows in enumerate(groups):
            for r, row in enumerate(rows):
                ids = torch.tensor([[*row, PAD]])  # a pad after the row changes nothing
                alone = plain(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
                assert packed[g, r].item() == pytest.approx(alone.item(), abs=1e-5)


@given(ROWS)
def test_the_tree_knows_what_a_row_adds(rows: list[list[int]]) -> None:
    tree = PrefixTree()
    for row in rows:
        before, new = len(tree.input_ids), tree.n_new(row)
        tree.add(row)
        assert len(tree.input_ids) == before + new
        assert tree.n_new(row) == 0
    assert all(parent < place for place, parent in enumerate(tree.parents))


def test_shared_tokens_stand_once() -> None:
    tree = PrefixTree()
    for row in ([5, 6, 7], [5, 6, 8], [5, 6]):
        tree.add(row)
    assert tree.input_ids == [5, 6, 7, 8]
    assert tree.parents == [-1, 0, 1, 1]
    assert tree.scored == [2, 3, 1]


def test_a_candidates_tokens_carry_its_label_and_contexts_none() -> None:
    tree = PrefixTree()
    for row in ([1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 6]):
        tree.add(row)  # candidates [3, 4], [3, 5], [6] after the context [1, 2]
    found = token_labels(tree, [1.0, 0.0, 0.0], [2, 2, 1])
    assert dict(zip(tree.input_ids, found, strict=True)) == {
        1: NO_LABEL,
        2: NO_LABEL,
        3: 0.5,  # of an accepted candidate and of one that is not
        4: 1.0,
        5: 0.0,
        6: 0.0,
    }


def test_the_loss_is_the_binary_cross_entropy_of_rows_that_exist(model: PackedClassifier) -> None:
    batch = collate([item([[7], [7, 8]], [1.0, 0.0]), item([[9]], [0.0])])
    with torch.no_grad():
        output = model(**batch)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.stack([output.logits[0, 0], output.logits[0, 1], output.logits[1, 0]]),
        torch.tensor([1.0, 0.0, 0.0]),
    )
    assert output.loss.item() == pytest.approx(expected.item())


def test_padding_items_changes_no_gradient(model: PackedClassifier) -> None:
    """Items of different lengths, in one batch or two."""
    long, short = item([[7, 8, 9, 7, 8]]), item([[9]])

    def gradient(batches: list[list[dict[str, list[float]]]]) -> torch.Tensor:
        model.zero_grad()
        for batch in batches:
            (model(**collate(batch)).loss * len(batch) / 2).backward()
        return model.transformer.h[0].mlp.c_fc.weight.grad.clone()

    torch.testing.assert_close(gradient([[long, short]]), gradient([[long], [short]]))
