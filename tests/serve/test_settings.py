"""The configuration keys of the C++ backend."""

from pathlib import Path

import onnxruntime
import pytest
from google.protobuf import json_format, text_format
from lookup import add_model
from tritonclient.grpc import model_config_pb2

from reward_contract import cpu
from reward_serve.backend.settings import (
    ConfigError,
    Device,
    SessionSettings,
    open_session,
    read_settings,
    refuse_other_devices,
)

LEVEL = onnxruntime.GraphOptimizationLevel
CPU = Device("CPU")
ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "model_repository" / "gpt2_reward" / "config.pbtxt"
BOTH = ["CUDAExecutionProvider", "CPUExecutionProvider"]


def parameters(**values: str) -> dict[str, object]:
    return {
        "parameters": {
            key.replace("__", "."): {"string_value": text} for key, text in values.items()
        }
    }


def test_without_parameters_everything_is_onnx_runtimes_choice() -> None:
    found = read_settings({}, CPU, BOTH)
    assert found.providers == (("CPUExecutionProvider", {}),)
    assert found.optimization == LEVEL.ORT_ENABLE_ALL
    assert (found.intra_op_threads, found.inter_op_threads, found.parallel) == (0, 0, False)
    assert (found.memory_arena, found.memory_pattern) == (True, True)


@pytest.mark.parametrize(
    ("level", "wanted"),
    [
        (-1, LEVEL.ORT_ENABLE_BASIC),
        (0, LEVEL.ORT_ENABLE_ALL),
        (1, LEVEL.ORT_ENABLE_EXTENDED),
        (2, LEVEL.ORT_DISABLE_ALL),
        (99, LEVEL.ORT_ENABLE_ALL),
    ],
)
def test_graph_level_is_numbered_as_in_the_cpp_backend(level: int, wanted: object) -> None:
    config = {"optimization": {"graph": {"level": level}}}
    assert read_settings(config, CPU, BOTH).optimization == wanted


def test_session_parameters_are_read() -> None:
    config = parameters(
        intra_op_thread_count="3",
        inter_op_thread_count="2",
        execution_mode="1",
        enable_mem_arena="0",
        enable_mem_pattern="0",
        memory__enable_memory_arena_shrinkage="cpu:0",
    )
    found = read_settings(config, CPU, BOTH)
    assert (found.intra_op_threads, found.inter_op_threads, found.parallel) == (3, 2, True)
    assert (found.memory_arena, found.memory_pattern) == (False, False)
    assert found.run_entries == {"memory.enable_memory_arena_shrinkage": "cpu:0"}


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("intra_op_thread_count", "-1"),
        ("intra_op_thread_count", "two"),
        ("execution_mode", "2"),
        ("execution_mode", "true"),
        ("enable_mem_arena", "yes"),
        ("memory.enable_memory_arena_shrinkage", "1"),
        ("gpu_mem_limit", "4GB"),
        ("arena_extend_strategy", "2"),
        ("cudnn_conv_algo_search", "3"),
    ],
)
def test_malformed_values_are_refused_by_name(key: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"parameter {key} is '{text}'; it has to"):
        read_settings(parameters(**{key: text}), Device("GPU"), BOTH)


@pytest.mark.parametrize(("text", "wanted"), [("true", True), ("False", False), ("0", False)])
def test_switches_are_words_or_digits_as_in_the_cpp_backend(text: str, *, wanted: bool) -> None:
    assert read_settings(parameters(enable_mem_arena=text), CPU, BOTH).memory_arena is wanted


def test_a_session_is_opened_with_the_settings(tmp_path: Path) -> None:
    graph = add_model(tmp_path, "lookup") / "1" / "model.onnx"
    settings = SessionSettings(
        providers=(("CPUExecutionProvider", {}),),
        optimization=LEVEL.ORT_DISABLE_ALL,
        intra_op_threads=2,
        inter_op_threads=3,
        parallel=True,
        memory_arena=False,
        memory_pattern=False,
    )
    options = open_session(str(graph), settings).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 3)
    assert options.execution_mode == onnxruntime.ExecutionMode.ORT_PARALLEL
    assert options.graph_optimization_level == LEVEL.ORT_DISABLE_ALL
    assert (options.enable_cpu_mem_arena, options.enable_mem_pattern) == (False, False)


@pytest.mark.parametrize("saturates", [False, True])
def test_int8_is_exact_on_every_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saturates: bool
) -> None:
    graph = add_model(tmp_path, "lookup") / "1" / "model.onnx"
    monkeypatch.setattr(cpu, "int8_saturates", lambda _: saturates)
    read = read_settings({}, CPU, BOTH)
    options = open_session(str(graph), read).get_session_options()
    ((name, value),) = cpu.EXACT_INT8.items()
    if saturates:
        assert options.get_session_config_entry(name) == value
    else:
        with pytest.raises(RuntimeError, match=name):
            options.get_session_config_entry(name)


def test_a_gpu_instance_runs_on_its_own_gpu_with_the_configured_memory() -> None:
    config = parameters(gpu_mem_limit="1000", arena_extend_strategy="1")
    found = read_settings(config, Device("GPU", 3), BOTH)
    assert found.providers[0] == (
        "CUDAExecutionProvider",
        {"device_id": "3", "gpu_mem_limit": "1000", "arena_extend_strategy": "kSameAsRequested"},
    )


def accelerator(kind: str, name: str, **values: str) -> dict[str, object]:
    block = {f"{kind}_execution_accelerator": [{"name": name, "parameters": values}]}
    return {"optimization": {"execution_accelerators": block}}


def test_parameters_come_after_the_cuda_accelerators_own() -> None:
    config = {
        **accelerator("gpu", "cuda", use_tf32="0", gpu_mem_limit="5", device_id="7"),
        **parameters(gpu_mem_limit="1000", do_copy_in_default_stream="true"),
    }
    (_cuda, options), _cpu = read_settings(config, Device("GPU", 1), BOTH).providers
    assert options == {
        "use_tf32": "0",
        "gpu_mem_limit": "1000",
        "do_copy_in_default_stream": "1",
        "device_id": "1",
    }


def test_accelerators_of_the_cpp_backend_are_refused_where_they_would_act() -> None:
    with pytest.raises(ConfigError, match=r"only the C\+\+ backend has .* 'tensorrt'"):
        read_settings(accelerator("gpu", "tensorrt"), Device("GPU"), BOTH)
    with pytest.raises(ConfigError, match=r"only the C\+\+ backend has .* 'openvino'"):
        read_settings(accelerator("cpu", "openvino"), CPU, BOTH)
    assert read_settings(accelerator("gpu", "tensorrt"), CPU, BOTH) == read_settings({}, CPU, BOTH)


def test_a_gpu_instance_never_falls_back_to_the_cpu() -> None:
    with pytest.raises(ConfigError, match="install onnxruntime-gpu instead"):
        read_settings({}, Device("GPU"), ["CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("devices", "provider", "refused"),
    [
        ("cpu", "CUDAExecutionProvider", True),
        ("cuda", "CPUExecutionProvider", True),
        ("cuda cpu", "CPUExecutionProvider", False),
        ("cuda cpu", "CUDAExecutionProvider", False),
        (None, "CUDAExecutionProvider", False),  # a graph from another exporter
    ],
)
def test_a_graph_is_refused_on_devices_that_it_is_not_for(
    devices: str | None, provider: str, *, refused: bool
) -> None:
    metadata = {} if devices is None else {"devices": devices}
    if not refused:
        refuse_other_devices(metadata, provider)
        return
    with pytest.raises(ConfigError, match=f"exported for {devices}, and this instance runs on"):
        refuse_other_devices(metadata, provider)


def test_the_checked_in_configuration_turns_off_what_would_move_rewards_on_a_gpu() -> None:
    message = text_format.Parse(CONFIG.read_text(), model_config_pb2.ModelConfig())
    config = json_format.MessageToDict(message, preserving_proto_field_name=True)
    options = read_settings(config, Device("GPU"), BOTH).providers[0][1]
    assert options["use_tf32"] == "0"
    assert options["enable_skip_layer_norm_strict_mode"] == "1"
