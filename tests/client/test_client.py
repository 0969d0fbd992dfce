"""Both clients against a scripted server."""

import inspect
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc
from waiting import HUNG_S, eventually

from reward_client import (
    AsyncRewardClient,
    Connection,
    ContractError,
    DeadlineError,
    InternalError,
    InvalidInputError,
    ModelInfo,
    ModelNotFoundError,
    ModelNotReadyError,
    NonFiniteRewardError,
    OverloadedError,
    RankedCandidate,
    RejectedError,
    Retry,
    RewardClient,
    RewardError,
    ServerInfo,
    Tokenizer,
    UnavailableError,
    grpc_errors,
    wire,
)
from reward_client.testing import FakeServer

Connect = Callable[..., RewardClient]

Code = grpc.StatusCode


def test_rewards_come_in_the_order_of_the_texts(client: RewardClient) -> None:
    scores = client.score(["Hi", "Hello", "Hi there"])
    assert scores.rewards.dtype == np.float32
    np.testing.assert_array_equal(scores.rewards, np.float32([172.5, 154.96, 172.5]))
    assert (scores.model_version, scores.n_tokens, scores.n_truncated) == (1, 4, 0)


def test_more_rows_than_a_batch_holds_are_split(fake: FakeServer, client: RewardClient) -> None:
    texts = [str(number) for number in range(10)]
    rewards = client.score(texts).rewards
    assert sorted(len(ids) for ids in fake.requests) == [2, 4, 4]
    wanted = Tokenizer().encode_rows(texts)[:, 0] / np.float32(100)
    np.testing.assert_allclose(rewards, wanted, rtol=1e-6)


def test_nothing_to_score_asks_nobody(fake: FakeServer, client: RewardClient) -> None:
    assert client.score([]).rewards.shape == (0,)
    assert client.score([]).model_version is None
    assert list(client.rank("context", [])) == []
    assert client.rank_many([]) == []
    assert [len(ranking) for ranking in client.rank_many([("context", [])])] == [0]
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
    assert ranking.best == ranking[0] == RankedCandidate("Hi", 172.5, 1)
    assert ranking.model_version == 1


def test_groups_are_ranked_each_by_itself(fake: FakeServer, client: RewardClient) -> None:
    groups = [("", ["Hello", "Hi"]), ("Hi", ["a", "b", "c"]), ("x", [])]
    one, two, none = client.rank_many(groups)
    assert [candidate.text for candidate in one] == ["Hi", "Hello"]
    assert [candidate.index for candidate in two] == [0, 1, 2]
    assert len(none) == 0
    assert sorted(len(ids) for ids in fake.requests) == [1, 4]


@pytest.mark.parametrize(
    ("groups", "group", "row"),
    [([("", ["a"]), ("", ["a", 7])], 1, 1), ([(None, ["a"])], 0, None), (["ab c"], 0, None)],
)
def test_a_bad_group_is_named(
    client: RewardClient, groups: list, group: int, row: int | None
) -> None:
    with pytest.raises(InvalidInputError, match=f"group {group}") as caught:
        client.rank_many(groups)
    assert (caught.value.group, caught.value.row) == (group, row)


def test_who_answers_is_known_after_connecting(fake: FakeServer, client: RewardClient) -> None:
    wanted = ServerInfo(fake.url, "fake", "0", "gpt2_reward", (1,), 4, (ModelInfo(1),))
    assert client.connect() == wanted


def test_the_version_that_answered_is_known(fake: FakeServer, client: RewardClient) -> None:
    assert client.score(["Hi"]).model_version == 1
    fake.version = 7
    assert client.score(["Hi"]).model_version == 7
    assert client.rank("", ["Hi"]).model_version == 7


class OneAtATime(FakeServer):
    """Answers one request at a time; otherwise two answers may name the same version."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._turn = threading.Lock()

    def ModelInfer(self, *arguments: Any) -> service_pb2.ModelInferResponse:  # noqa: N802
        with self._turn:
            return super().ModelInfer(*arguments)


def test_a_model_exchanged_during_a_call_costs_requests_and_no_failure(connect: Connect) -> None:
    def rewards(ids: np.ndarray) -> np.ndarray:
        fake.version = 1 if len(fake.requests) < 3 else 2
        return fake.version * 1000 + ids[:, 0] / 100

    with OneAtATime(rewards, max_batch_rows=2) as fake:
        scores = connect(fake.url).score(["Hi"] * 9)
        assert scores.model_version == 2
        np.testing.assert_array_equal(scores.rewards, np.float32([2172.5] * 9))


def test_rewards_of_two_versions_are_not_compared(connect: Connect) -> None:
    class Exchanging(OneAtATime):
        """Its model is replaced with every request."""

        def ModelInfer(self, *arguments: Any) -> service_pb2.ModelInferResponse:  # noqa: N802
            with self._turn:
                self.version += 1
                return FakeServer.ModelInfer(self, *arguments)

    with Exchanging(lambda ids: ids[:, 0], max_batch_rows=2) as fake:
        client = connect(fake.url)
        assert len(client.score(["a", "b"]).rewards) == 2
        with pytest.raises(ContractError, match="of the model answered parts of one call"):
            client.rank("", ["a", "b", "c"])


def test_one_client_serves_many_threads(client: RewardClient) -> None:
    texts = [[str(number), str(number + 1)] for number in range(100)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(client.score, texts))
    for pair, scores in zip(texts, found, strict=True):
        wanted = Tokenizer().encode_rows(pair)[:, 0] / np.float32(100)
        np.testing.assert_allclose(scores.rewards, wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("code", "words", "kind"),
    [
        (Code.UNAVAILABLE, "Socket closed", UnavailableError),
        (Code.UNAVAILABLE, "in request: Exceeds maximum queue size", OverloadedError),
        (Code.UNAVAILABLE, "Request timeout expired", DeadlineError),
        (Code.UNAVAILABLE, "Request for unknown model: 'm' is not found", ModelNotFoundError),
        (
            Code.UNAVAILABLE,
            "Request for unknown model: 'm' version 2 is not at ready state",
            ModelNotReadyError,
        ),
        (
            Code.UNAVAILABLE,
            "Request for unknown model: 'm' has no available versions",
            ModelNotReadyError,
        ),
        (Code.NOT_FOUND, "Request for unknown model: 'm' is not found", ModelNotFoundError),
        (
            Code.NOT_FOUND,
            "Request for unknown model: 'm' has no available versions",
            ModelNotReadyError,
        ),
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
    fake: FakeServer, connect: Connect, code: grpc.StatusCode, words: str, kind: type[Exception]
) -> None:
    fake.fail_with = (code, words)
    client = connect(fake.url, connection=Connection(retry=Retry(attempts=1)))
    with pytest.raises(RewardError, match=words[:12]) as caught:
        client.score(["Hi"])
    assert type(caught.value) is kind
    assert caught.value.code == code.name
    assert caught.value.url == fake.url


def test_no_status_of_grpc_is_left_out() -> None:
    assert grpc_errors._BY_CODE.keys() == {code.name for code in Code} - {"OK"}


def test_a_server_that_refuses_to_say_who_it_is(fake: FakeServer, connect: Connect) -> None:
    fake.fail_with = (Code.UNAVAILABLE, "not ready")
    with (
        pytest.raises(UnavailableError, match="finished loading") as caught,
        RewardClient(fake.url),
    ):
        pass
    assert caught.value.attempts == Retry().attempts
    fake.fail_with = None
    assert len(connect(fake.url).score(["Hi"]).rewards) == 1


def test_the_fake_refuses_what_triton_refuses(fake: FakeServer) -> None:
    request = wire.request_of(
        Tokenizer().encode_rows(["a"] * 5), model="gpt2_reward", version="", priority_level=None
    )
    with grpc.insecure_channel(fake.url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError, match="max_batch_size") as caught:
            stub.ModelInfer(request)
    assert caught.value.code() == Code.INVALID_ARGUMENT


def test_a_server_that_takes_too_long_is_a_deadline(connect: Connect) -> None:
    told = threading.Event()

    def rewards(ids: np.ndarray) -> np.ndarray:
        told.wait()
        return ids[:, 0]

    with FakeServer(rewards) as fake:
        client = connect(fake.url)
        client.connect()
        with pytest.raises(DeadlineError):  # while the server has answered nothing
            client.score(["Hi"], timeout_s=0.2)
        told.set()


def test_large_calls_of_several_threads_do_not_queue_for_each_other() -> None:
    told = threading.Event()

    def rewards(ids: np.ndarray) -> np.ndarray:
        told.wait()
        return ids[:, 0]

    with (
        FakeServer(rewards, max_batch_rows=4) as fake,
        RewardClient(fake.url, timeout_s=HUNG_S) as client,
        ThreadPoolExecutor(2) as threads,
    ):
        client.connect()
        long = threads.submit(client.score, ["Hi"] * 16)  # four requests
        assert eventually(lambda: len(fake.requests) == 4)
        with pytest.raises(DeadlineError) as caught:
            client.score(["Hi"] * 8, timeout_s=0.5)
        assert caught.value.code == "DEADLINE_EXCEEDED", "the server was asked"
        told.set()
        assert len(long.result().rewards) == 16


def test_nobody_there(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(UnavailableError, match="is a server running there") as caught:
        connect(url).score(["Hi"])
    assert caught.value.attempts == Retry().attempts


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rewards_that_are_no_numbers_name_their_rows(bad: float, connect: Connect) -> None:
    def rewards(ids: np.ndarray) -> np.ndarray:
        return np.where(ids[:, 0] == 17250, bad, 1.0)

    with (
        FakeServer(rewards, max_batch_rows=2) as fake,
        pytest.raises(NonFiniteRewardError, match="rows 1, 4 of 5") as caught,
    ):
        connect(fake.url).score(["a", "Hi", "b", "c", "Hi"])
    assert caught.value.rows == (1, 4)


def test_an_answer_of_another_size_is_refused(connect: Connect) -> None:
    with (
        FakeServer(lambda ids: np.ones(len(ids) + 1, np.float32)) as fake,
        pytest.raises(ContractError, match=r"answered reward FP32 \[3, 1\]"),
    ):
        connect(fake.url).score(["a", "b"])


@pytest.mark.parametrize(
    ("rewards", "found"),
    [
        (np.ones((2, 1), np.float64), r"reward FP64 \[2, 1\]"),
        (np.ones(2, np.float32), r"reward FP32 \[2\]"),
        (np.ones((2, 1), np.float16), r"reward FP32 \[2, 1\]"),  # too few bytes for what it says
        (None, "nothing"),
    ],
)
def test_an_answer_of_another_type_or_shape_is_refused(
    rewards: np.ndarray | None, found: str
) -> None:
    response = service_pb2.ModelInferResponse(model_version="latest")
    if rewards is not None:
        datatype = "FP64" if rewards.dtype == np.float64 else "FP32"
        response.outputs.add(name="reward", datatype=datatype, shape=rewards.shape)
        response.raw_output_contents.append(rewards.tobytes())
    with pytest.raises(ContractError, match=f"answered {found};"):
        wire.rewards_of(response, 2)
    with pytest.raises(ContractError, match="'latest'"):
        wire.version_of(response)


def test_many_rows_are_not_all_listed() -> None:
    with pytest.raises(NonFiniteRewardError, match=r"rows 0, 1, .* 9 and 2 more of 12") as caught:
        wire.check_finite(np.full(12, np.nan, np.float32))
    assert caught.value.rows == tuple(range(12))


def test_a_server_with_another_contract_is_told_apart_before_anything_is_sent(
    fake: FakeServer, client: RewardClient
) -> None:
    fake.config.parameters["max_tokens"].string_value = "512"
    del fake.config.parameters["vocab_size"]
    fake.config.input[0].name = "ids"
    with pytest.raises(ContractError) as caught:
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
def test_a_senseless_timeout_is_a_programming_mistake(
    client: RewardClient, timeout_s: float
) -> None:
    with pytest.raises(ValueError, match="timeout_s"):
        RewardClient(timeout_s=timeout_s)
    with pytest.raises(ValueError, match="timeout_s"):
        client.score(["Hi"], timeout_s=timeout_s)


@pytest.mark.parametrize("options", [{"truncation": "right"}, {"priority": "urgent"}, {"url": []}])
def test_a_senseless_option_is_a_programming_mistake(options: dict) -> None:
    with pytest.raises(ValueError, match=r"truncation|priority|addresses"):
        RewardClient(**options)


def test_both_clients_have_the_same_methods() -> None:
    def public(kind: type) -> dict[str, inspect.Signature]:
        members = inspect.getmembers(kind, inspect.isfunction)
        return {
            name: inspect.signature(method)
            for name, method in members
            if not name.startswith("_") or name == "__init__"
        }

    awaited = public(AsyncRewardClient)
    del awaited["rank_each"]  # blocking callers have no use for it
    assert public(RewardClient) == awaited
    for name in ("counts", "timeout_s", "truncation"):
        assert isinstance(getattr(AsyncRewardClient, name), property)


def test_the_client_counts_what_it_does(fake: FakeServer, client: RewardClient) -> None:
    client.score(["Hi there", "word " * 300])
    fake.fail_with = (Code.INVALID_ARGUMENT, "no")
    with pytest.raises(RejectedError):
        client.score(["Hi"])
    counts = client.counts
    assert (counts.candidates, counts.tokens, counts.truncated) == (2, 258, 1)
    assert (counts.failures, counts.retries) == (1, 0)


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
