"""The Python-based backend inside a real tritonserver."""

import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from reward_serve.server import TritonServer

Answer = list[list[int]] | str


def ask(client: InferenceServerClient, rows: list[list[int]], model: str = "lookup") -> Answer:
    x = InferInput("x", [len(rows), len(rows[0])], "INT64")
    x.set_data_from_numpy(np.array(rows, np.int64))
    try:
        return client.infer(model, [x]).as_numpy("y").tolist()
    except InferenceServerException as error:
        return error.message()


def ask_at_once(server: TritonServer, requests: list[list[list[int]]]) -> list[Answer]:
    client = InferenceServerClient(server.grpc_url)
    with ThreadPoolExecutor(len(requests)) as pool:
        answers = list(pool.map(lambda rows: ask(client, rows), requests))
    client.close()
    return answers


def counts(server: TritonServer) -> tuple[int, int]:
    """Rows answered and runs made so far."""
    with urllib.request.urlopen(f"{server.http_url}/v2/models/lookup/stats") as response:
        (stats,) = json.load(response)["model_stats"]
    return stats["inference_count"], stats["execution_count"]


def test_requests_are_batched_and_each_gets_its_own_rows(lookup_server: TritonServer) -> None:
    rows_before, runs_before = counts(lookup_server)
    requests = [[[i % 5, (i + 1) % 5]] * (1 + i % 3) for i in range(12)]
    answers = ask_at_once(lookup_server, requests)
    assert answers == [[[10 * x for x in row] for row in rows] for rows in requests]
    rows, runs = counts(lookup_server)
    assert rows - rows_before == sum(map(len, requests))
    assert runs - runs_before < len(requests)


def test_a_request_that_fails_fails_alone(lookup_server: TritonServer) -> None:
    requests = [[[1, 2]], [[3, 99]], [[4, 0], [0, 1]], [[-77, 0]], [[2, 2]]]
    answers = ask_at_once(lookup_server, requests)
    assert [answers[i] for i in (0, 2, 4)] == [[[10, 20]], [[40, 0], [0, 10]], [[20, 20]]]
    for failed in (1, 3):
        assert "out of data bounds" in answers[failed]


def test_requests_of_other_widths_are_answered_too(lookup_server: TritonServer) -> None:
    requests = [[[1] * width] for width in (1, 2, 3, 2, 1)]
    assert ask_at_once(lookup_server, requests) == [[[10] * len(r[0])] for r in requests]


@pytest.mark.parametrize(
    ("name", "dtype"), [("x", "INT32"), ("z", "INT64")], ids=["wrong type", "wrong name"]
)
def test_malformed_requests_are_refused_and_the_server_goes_on(
    lookup_server: TritonServer, name: str, dtype: str
) -> None:
    client = InferenceServerClient(lookup_server.grpc_url)
    x = InferInput(name, [1, 2], dtype)
    x.set_data_from_numpy(np.ones((1, 2), dtype.lower()))
    with pytest.raises(InferenceServerException, match="INVALID_ARGUMENT"):
        client.infer("lookup", [x])
    assert ask(client, [[1]]) == [[10]]
    client.close()


def test_a_model_without_batches_is_served_too(lookup_server: TritonServer) -> None:
    client = InferenceServerClient(lookup_server.grpc_url)
    assert ask(client, [[1, 2], [3, 4]], "flat") == [[10, 20], [30, 40]]
    assert "out of data bounds" in ask(client, [[99]], "flat")
    client.close()


def test_strings_arrive_as_they_were_sent(lookup_server: TritonServer) -> None:
    client = InferenceServerClient(lookup_server.grpc_url)
    sent = np.array([["a", "é\n"], ["", "b'c'"]], np.object_)
    x = InferInput("x", [2, 2], "BYTES")
    x.set_data_from_numpy(sent)
    answer = client.infer("echo", [x]).as_numpy("y")
    assert [text.decode() for text in answer.ravel()] == sent.ravel().tolist()
    client.close()


def test_only_requested_outputs_are_answered(lookup_server: TritonServer) -> None:
    client = InferenceServerClient(lookup_server.grpc_url)
    x = InferInput("x", [1, 1], "INT64")
    x.set_data_from_numpy(np.ones((1, 1), np.int64))
    answer = client.infer("lookup", [x], outputs=[InferRequestedOutput("y")])
    assert [output.name for output in answer.get_response().outputs] == ["y"]
    with pytest.raises(InferenceServerException, match="unexpected inference output 'z'"):
        client.infer("lookup", [x], outputs=[InferRequestedOutput("z")])
    client.close()


def test_an_automatic_instance_is_one_on_a_machine_without_a_gpu(
    lookup_server: TritonServer,
) -> None:
    client = InferenceServerClient(lookup_server.grpc_url)
    (group,) = client.get_model_config("lookup", as_json=True)["config"]["instance_group"]
    client.close()
    assert (group["kind"], group["count"]) == ("KIND_CPU", 1)
    started = "TRITONBACKEND_ModelInstanceInitialize: lookup_0_"
    assert lookup_server.log.read_text().count(started) == 1
