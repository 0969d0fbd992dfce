"""The checked-in config.pbtxt, as Triton's own protobuf reads it, agrees with the contract."""

import hashlib
from importlib import resources
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from reward_client.wire import check_config
from reward_contract import (
    CONTRACT,
    INPUT_IDS,
    MODEL_NAME,
    PRIORITY_LEVELS,
    REWARD,
    Contract,
)

CONFIG = Path(__file__).parents[2] / "model_repository" / MODEL_NAME / "config.pbtxt"


@pytest.fixture(scope="module")
def config() -> model_config_pb2.ModelConfig:
    return text_format.Parse(CONFIG.read_text(), model_config_pb2.ModelConfig())


def test_a_client_accepts_it(config: model_config_pb2.ModelConfig) -> None:
    assert check_config(config, "here") == config.max_batch_size == 128


def test_it_names_folder_backend_and_tensors(config: model_config_pb2.ModelConfig) -> None:
    assert config.name == CONFIG.parent.name
    assert config.backend == "onnxruntime"
    types = model_config_pb2.DataType
    for tensors, spec in ((config.input, INPUT_IDS), (config.output, REWARD)):
        (tensor,) = tensors
        assert tensor.name == spec.name
        assert types.Name(tensor.data_type) == f"TYPE_{spec.dtype}"
        assert tuple(tensor.dims) == spec.dims


def test_it_carries_the_contract(config: model_config_pb2.ModelConfig) -> None:
    carried = {key: value.string_value for key, value in config.parameters.items()}
    assert CONTRACT.as_parameters().items() <= carried.items()


def test_it_batches_on_two_instances(config: model_config_pb2.ModelConfig) -> None:
    assert config.HasField("dynamic_batching")
    assert [group.count for group in config.instance_group] == [2]


def test_its_queues_are_bounded_in_requests_and_time(
    config: model_config_pb2.ModelConfig,
) -> None:
    batching = config.dynamic_batching
    assert batching.priority_levels == len(PRIORITY_LEVELS) == 2
    assert batching.default_priority_level == PRIORITY_LEVELS["interactive"]
    bulk = batching.priority_queue_policy[PRIORITY_LEVELS["bulk"]]
    for policy in (batching.default_queue_policy, bulk):
        assert policy.timeout_action == model_config_pb2.ModelQueuePolicy.REJECT
        assert policy.allow_timeout_override
        assert policy.max_queue_size > 0
        assert policy.default_timeout_microseconds > 0
    assert batching.max_queue_delay_microseconds == 0, "see docs/operations.md"


def test_its_warm_ups_are_what_every_checkpoint_can_score(
    config: model_config_pb2.ModelConfig,
) -> None:
    assert [sample.batch_size for sample in config.model_warmup] == [1, 1, 1]
    for sample in config.model_warmup:
        tensor = sample.inputs[INPUT_IDS.name]
        assert tensor.zero_data, "random data lies outside of every vocabulary"
        (length,) = tensor.dims
        assert 1 <= length <= 1024


def test_every_field_has_a_comment() -> None:
    lines = CONFIG.read_text().splitlines()
    # the exporter adds a version's facts if the repository is this checkout's
    fields = [
        i
        for i, line in enumerate(lines)
        if line and line[0].isalpha() and not line.startswith('parameters { key: "version.')
    ]
    contract = [i for i in fields if lines[i].startswith("parameters")]
    for i in set(fields) - set(contract[1:3]):  # one comment for the first three
        above = next(j for j in range(i, -1, -1) if lines[j].lstrip().startswith("#"))
        inside = any(line.lstrip().startswith("#") for line in lines[i + 1 : i + 4])
        assert above == i - 1 or inside, lines[i]


def test_the_gpu_overlay_and_the_docs_say_what_is_configured(
    config: model_config_pb2.ModelConfig,
) -> None:
    (instances,) = config.instance_group
    assert (instances.count, config.max_batch_size) == (2, 128)
    assert "gpu_mem_limit" not in config.parameters
    root = CONFIG.parents[2]
    overlay = (root / "deploy" / "kubernetes" / "gpu" / "deployment.yaml").read_text()
    assert "two, 128, and no gpu_mem_limit" in overlay
    assert "`max_batch_size` stays at 128" in (root / "docs" / "operations.md").read_text()


def test_the_contract_names_the_shipped_vocabulary() -> None:
    data = resources.files("reward_text") / "data"
    digest = hashlib.sha256()
    for name, original in (
        ("encoder.json", "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"),
        ("vocab.bpe", "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"),
    ):
        content = (data / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == original
        digest.update(content)
    assert digest.hexdigest() == CONTRACT.tokenizer_sha256


def test_differences_are_listed_by_name() -> None:
    server = Contract(max_tokens=512).as_parameters()
    del server["pad_token_id"]
    assert CONTRACT.differences(server) == [
        "max_tokens: server has 512, client has 256",
        "pad_token_id: server has nothing, client has 50256",
    ]
    assert CONTRACT.differences(CONTRACT.as_parameters()) == []
