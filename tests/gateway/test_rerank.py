"""Reranking, through each protocol's own client."""

from typing import Any

import cohere
import httpx
import numpy as np
import pytest
from rerankers.models.api_rankers import APIRanker

from reward_client import RewardClient
from reward_client.testing import FakeServer

CONTEXT = "Hello there.\nHow are you?\n"
DOCUMENTS = ["Fine.", "I am very well, thank you for asking.", "Quite well."]


@pytest.fixture
def ranking(fake: FakeServer) -> Any:
    with RewardClient(fake.url) as client:
        return client.rank(CONTEXT, DOCUMENTS)


def pairs(results: Any) -> list[tuple[int, float]]:
    return [(one.index, pytest.approx(one.relevance_score)) for one in results]


def wanted(ranking: Any) -> list[tuple[int, float]]:
    return [(one.index, one.probability) for one in ranking]


def test_coheres_first_client(gateway: Any, ranking: Any) -> None:
    with cohere.Client("key", base_url=gateway()) as client:
        found = client.rerank(query=CONTEXT, documents=DOCUMENTS, model="reward", top_n=2)
        assert pairs(found.results) == wanted(ranking)[:2]
        assert found.meta.api_version.version == "1"
        objects = [{"text": text} for text in DOCUMENTS]
        found = client.rerank(
            query=CONTEXT, documents=objects, model="reward", return_documents=True
        )
    assert [one.document.text for one in found.results] == [one.text for one in ranking]


def test_coheres_second_client(gateway: Any, ranking: Any) -> None:
    with cohere.ClientV2("key", base_url=gateway()) as client:
        found = client.rerank(query=CONTEXT, documents=DOCUMENTS, model="reward")
        assert pairs(found.results) == wanted(ranking)
        with pytest.raises(cohere.UnprocessableEntityError, match="max_tokens_per_doc"):
            client.rerank(query=CONTEXT, documents=DOCUMENTS, model="reward", max_tokens_per_doc=9)


@pytest.mark.parametrize(
    ("provider", "path"),
    [
        ("jina", "/v1/rerank"),
        ("cohere", "/v1/rerank"),
        ("text-embeddings-inference", "/rerank"),
    ],
)
def test_the_package_rerankers(gateway: Any, ranking: Any, provider: str, path: str) -> None:
    ranker = APIRanker("reward", "key", provider, url=gateway() + path)
    found = ranker.rank(query=CONTEXT, docs=DOCUMENTS)
    assert [(one.document.doc_id, pytest.approx(one.score)) for one in found.results] == wanted(
        ranking
    )


def test_teis_protocol(gateway: Any, ranking: Any) -> None:
    body = {"query": CONTEXT, "texts": DOCUMENTS, "raw_scores": True, "return_text": True}
    found = httpx.post(f"{gateway()}/rerank", json=body).json()
    assert found == [
        {"index": one.index, "score": pytest.approx(one.reward), "text": one.text}
        for one in ranking
    ]


def test_vllms_scores(gateway: Any, ranking: Any) -> None:
    url = gateway()
    body = {"model": "reward", "text_1": CONTEXT, "text_2": DOCUMENTS}
    found = httpx.post(f"{url}/v1/score", json=body).json()
    assert [one["score"] for one in found["data"]] == pytest.approx(ranking.probabilities.tolist())
    assert found["usage"]["prompt_tokens"] == sum(one.n_tokens for one in ranking)
    body = {"queries": [CONTEXT] * 3, "documents": DOCUMENTS, "use_activation": False}
    found = httpx.post(f"{url}/score", json=body).json()
    assert [one["score"] for one in found["data"]] == pytest.approx(ranking.rewards.tolist())
    body = {"text_1": [CONTEXT] * 2, "text_2": DOCUMENTS}
    assert "text_1 has 2 texts and text_2 has 3" in httpx.post(f"{url}/score", json=body).text


def test_vllms_classes(gateway: Any, ranking: Any) -> None:
    body = {"input": [CONTEXT + text for text in DOCUMENTS]}
    found = httpx.post(f"{gateway()}/classify", json=body).json()
    assert [one["probs"] for one in found["data"]] == [
        [pytest.approx(one)] for one in ranking.probabilities.tolist()
    ]
    assert {(one["label"], one["num_classes"]) for one in found["data"]} == {("LABEL_0", 1)}


def test_a_query_may_be_a_conversation(gateway: Any, fake: FakeServer) -> None:
    messages = [{"role": "user", "content": "Hello there."}, {"role": "user", "content": "Hm?"}]
    body = {"query": messages, "documents": DOCUMENTS}
    found = httpx.post(f"{gateway()}/v1/rerank", json=body).json()
    with RewardClient(fake.url) as client:
        ranking = client.rank(messages, DOCUMENTS)
    assert [one["index"] for one in found["results"]] == [one.index for one in ranking]
    assert [one["document"]["text"] for one in found["results"]] == [one.text for one in ranking]
    np.testing.assert_allclose(
        [one["relevance_score"] for one in found["results"]], sorted(ranking.probabilities)[::-1]
    )


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/v1/rerank", {"query": "q", "documents": ["d"], "max_chunks_per_doc": 2}, "max_chunks"),
        ("/v1/rerank", {"query": "q", "documents": [{"image": "x"}]}, "documents"),
        ("/v1/rerank", {"query": "q", "documents": []}, "documents"),
        ("/v2/rerank", {"query": "q", "documents": [{"text": "d"}]}, "documents"),
        ("/rerank", {"query": "q", "texts": ["d"], "truncate": False}, "truncate"),
        ("/rerank", {"query": "q", "texts": ["d"], "truncation_direction": "right"}, "direction"),
        ("/score", {"text_1": "q", "text_2": "d", "truncate_prompt_tokens": 5}, "truncate_prompt"),
        ("/classify", {"input": [[1, 2]]}, "input"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    gateway: Any, path: str, body: dict[str, Any], named: str
) -> None:
    answer = httpx.post(f"{gateway()}{path}", json=body)
    assert answer.status_code == 422
    assert named in answer.text
