"""The client against a scripted server."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from tritonclient.grpc import InferResult, service_pb2

from reward_client import (
    ContractError,
    DeadlineError,
    InternalError,
    InvalidInputError,
    ModelNotFoundError,
    NonFiniteRewardError,
    OverloadedError,
    RankedCandidate,
    RejectedError,
    RewardClient,
    RewardError,
    ServerInfo,
    Tokenizer,
    UnavailableError,
    wire,
)
from reward_client.testing import FakeServer

Code = grpc.StatusCode


def test_rewards_come_in_the_order_of_the_texts(client: RewardClient) -> None:
    rewards = client.score(["Hi", "Hello", "Hi"])
    assert rewards.dtype == np.float32
    np.testing.assert_array_equal(rewards, np.float32([172.5, 154.96, 172.5]))


def test_more_rows_than_a_batch_holds_are_split(fake: FakeServer, client: RewardClient) -> None:
    texts = [str(number) for number in range(10)]
    rewards = client.score(texts)
    assert [len(ids) for ids in fake.requests] == [4, 4, 2]
    wanted = Tokenizer().encode_rows(texts)[:, 0] / np.float32(100)
    np.testing.assert_allclose(rewards, wanted, rtol=1e-6)


def test_nothing_to_score_asks_nobody(fake: FakeServer, client: RewardClient) -> None:
    assert client.score([]).shape == (0,)
    assert client.rank("context", []) == []
    assert fake.requests == []


def test_the_text_scored_is_context_and_candidate_joined_as_they_are(
    fake: FakeServer, client: RewardClient
) -> None:
    client.rank("How are", [" you?", "n't"])
    np.testing.assert_array_equal(
        fake.requests[0], Tokenizer().encode_rows(["How are you?", "How aren't"])
    )


def test_candidates_are_ranked_best_first_and_ties_stay_in_order(client: RewardClient) -> None:
    ranking = client.rank("", ["Hello", "Hi", "Hello", "Hi"])
    assert [candidate.index for candidate in ranking] == [1, 3, 0, 2]
    assert ranking[0] == RankedCandidate("Hi", 172.5, 1)


def test_who_answers_is_known_after_connecting(fake: FakeServer, client: RewardClient) -> None:
    assert client.connect() == ServerInfo(fake.url, "fake", "0", "gpt2_reward", (1,), 4)


def test_the_version_that_answered_is_known(fake: FakeServer, client: RewardClient) -> None:
    assert client.answered_version is None
    fake.version = 7
    client.score(["Hi"])
    assert client.answered_version == 7


def test_rewards_of_two_versions_are_not_compared() -> None:
    def rewards(ids: np.ndarray) -> np.ndarray:
        fake.version += 1  # as if it were exchanged between two requests
        return ids[:, 0]

    with FakeServer(rewards, max_batch_rows=2) as fake, RewardClient(fake.url) as client:
        assert len(client.score(["a", "b"])) == 2
        with pytest.raises(ContractError, match="versions 3, 4 of the model answered"):
            client.rank("", ["a", "b", "c"])


def test_one_client_serves_many_threads(fake: FakeServer) -> None:
    texts = [[str(number), str(number + 1)] for number in range(100)]
    with RewardClient(fake.url) as client, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(client.score, texts))
    for pair, rewards in zip(texts, found, strict=True):
        wanted = Tokenizer().encode_rows(pair)[:, 0] / np.float32(100)
        np.testing.assert_allclose(rewards, wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("code", "words", "kind"),
    [
        (Code.UNAVAILABLE, "Socket closed", UnavailableError),
        (Code.UNAVAILABLE, "in request: Exceeds maximum queue size", OverloadedError),
        (Code.UNAVAILABLE, "Request timeout expired", DeadlineError),
        (Code.UNAVAILABLE, "Request for unknown model: 'm' is not found", ModelNotFoundError),
        (Code.NOT_FOUND, "Request for unknown model: 'm' is not found", ModelNotFoundError),
        (Code.RESOURCE_EXHAUSTED, "too much", OverloadedError),
        (Code.DEADLINE_EXCEEDED, "too late", DeadlineError),
        (Code.INVALID_ARGUMENT, "unexpected shape", RejectedError),
        (Code.UNAUTHENTICATED, "who are you", RejectedError),
        (Code.PERMISSION_DENIED, "not you", RejectedError),
        (Code.UNIMPLEMENTED, "what is that", RejectedError),
        (Code.INTERNAL, "broken", InternalError),
        (Code.UNKNOWN, "strange", InternalError),
    ],
)
def test_every_status_is_an_error_of_its_kind(
    fake: FakeServer, client: RewardClient, code: grpc.StatusCode, words: str, kind: type[Exception]
) -> None:
    fake.fail_with = (code, words)
    with pytest.raises(RewardError, match=words[:12]) as caught:
        client.score(["Hi"])
    assert type(caught.value) is kind
    assert caught.value.code == code.name
    assert caught.value.url == fake.url


def test_no_status_of_grpc_is_left_out() -> None:
    assert wire._BY_CODE.keys() == {code.name for code in Code} - {"OK"}


def test_a_server_that_refuses_to_say_who_it_is(fake: FakeServer) -> None:
    fake.fail_with = (Code.UNAVAILABLE, "not ready")
    with pytest.raises(UnavailableError, match="finished loading"), RewardClient(fake.url):
        pass
    fake.fail_with = None
    with RewardClient(fake.url) as client:
        assert len(client.score(["Hi"])) == 1


def test_the_fake_refuses_what_triton_refuses(fake: FakeServer) -> None:
    with RewardClient(fake.url) as client:
        fake.config.max_batch_size = 2  # after the client has read it
        with pytest.raises(RejectedError, match="max_batch_size"):
            client.score(["a", "b", "c"])


def test_a_server_that_takes_too_long_is_a_deadline(fake: FakeServer) -> None:
    fake.delay_s = 0.5
    with RewardClient(fake.url, timeout_s=0.2) as client:
        start = time.monotonic()
        with pytest.raises(DeadlineError):
            client.score(["Hi"])
        assert time.monotonic() - start < 0.45


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"127.0.0.1:{unused.getsockname()[1]}"
    client = RewardClient(url, timeout_s=2)
    with pytest.raises(UnavailableError, match="is a server running there"):
        client.score(["Hi"])
    client.close()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rewards_that_are_no_numbers_name_their_rows(bad: float) -> None:
    def rewards(ids: np.ndarray) -> np.ndarray:
        return np.where(ids[:, 0] == 17250, bad, 1.0)

    with (
        FakeServer(rewards, max_batch_rows=2) as fake,
        RewardClient(fake.url) as client,
        pytest.raises(NonFiniteRewardError, match="rows 1, 4 of 5") as caught,
    ):
        client.score(["a", "Hi", "b", "c", "Hi"])
    assert caught.value.rows == (1, 4)


def test_an_answer_of_another_size_is_refused() -> None:
    with (
        FakeServer(lambda ids: np.ones(len(ids) + 1, np.float32)) as fake,
        RewardClient(fake.url) as client,
        pytest.raises(ContractError, match=r"answered float32 \[3, 1\]"),
    ):
        client.score(["a", "b"])


@pytest.mark.parametrize(
    ("rewards", "found"),
    [
        (np.ones((2, 1), np.float64), r"float64 \[2, 1\]"),
        (np.ones(2, np.float32), r"float32 \[2\]"),
        (None, "nothing"),
    ],
)
def test_an_answer_of_another_type_or_shape_is_refused(
    rewards: np.ndarray | None, found: str
) -> None:
    response = service_pb2.ModelInferResponse(model_version="latest")
    if rewards is not None:
        datatype = {"float64": "FP64", "float32": "FP32"}[str(rewards.dtype)]
        response.outputs.add(name="reward", datatype=datatype, shape=rewards.shape)
        response.raw_output_contents.append(rewards.tobytes())
    with pytest.raises(ContractError, match=f"answered {found} as reward"):
        wire.rewards_of(InferResult(response), 2)
    with pytest.raises(ContractError, match="'latest'"):
        wire.version_of(InferResult(response))


def test_many_rows_are_not_all_listed() -> None:
    with pytest.raises(NonFiniteRewardError, match=r"rows 0, 1, .* 9 and 2 more of 12") as caught:
        wire.check_finite(np.full(12, np.nan, np.float32))
    assert caught.value.rows == tuple(range(12))


def test_a_server_with_another_contract_is_told_apart_before_anything_is_sent(
    fake: FakeServer,
) -> None:
    fake.config.parameters["max_tokens"].string_value = "512"
    del fake.config.parameters["vocab_size"]
    fake.config.input[0].name = "ids"
    with pytest.raises(ContractError) as caught, RewardClient(fake.url) as client:
        client.score(["Hi"])
    assert caught.value.differences == (
        "input: server has ids INT32 [-1], client has input_ids INT32 [-1]",
        "max_tokens: server has 512, client has 256",
        "vocab_size: server has nothing, client has 50257",
    )
    assert all(line in str(caught.value) for line in caught.value.differences)
    assert fake.requests == []


def test_a_server_that_does_not_batch_is_refused(fake: FakeServer) -> None:
    fake.config.max_batch_size = 0
    with pytest.raises(ContractError, match="max_batch_size"), RewardClient(fake.url):
        pass


@pytest.mark.parametrize("timeout_s", [0, -1, float("inf"), float("nan")])
def test_a_senseless_timeout_is_a_programming_mistake(timeout_s: float) -> None:
    with pytest.raises(ValueError, match="timeout_s"):
        RewardClient(timeout_s=timeout_s)


def test_a_bad_candidate_is_named_by_its_place(client: RewardClient) -> None:
    with pytest.raises(InvalidInputError) as caught:
        client.rank("context", ["a", None])
    assert caught.value.row == 1
    with pytest.raises(InvalidInputError, match="list of texts"):
        client.rank("context", "one candidate")


@pytest.mark.parametrize(
    ("context", "message"),
    [(None, "the context is NoneType"), ("a\udfff", "the context holds a lone surrogate")],
)
def test_a_bad_context_is_no_row(client: RewardClient, context: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        client.rank(context, ["a"])
    assert caught.value.row is None
