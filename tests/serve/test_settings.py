"""The configuration keys of the C++ backend."""

import onnxruntime
import pytest

from reward_serve.backend.settings import ConfigError, Device, read_settings

LEVEL = onnxruntime.GraphOptimizationLevel
CPU = Device("CPU")
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
    [("intra_op_thread_count", "-1"), ("intra_op_thread_count", "two"), ("execution_mode", "2")],
)
def test_malformed_values_are_refused_by_name(key: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"parameter {key} is '{text}'"):
        read_settings(parameters(**{key: text}), CPU, BOTH)


def test_a_gpu_instance_runs_on_its_own_gpu_with_the_configured_memory() -> None:
    config = parameters(gpu_mem_limit="1000", arena_extend_strategy="1")
    found = read_settings(config, Device("GPU", 3), BOTH)
    assert found.providers[0] == (
        "CUDAExecutionProvider",
        {"device_id": "3", "gpu_mem_limit": "1000", "arena_extend_strategy": "kSameAsRequested"},
    )


def test_a_gpu_instance_never_falls_back_to_the_cpu() -> None:
    with pytest.raises(ConfigError, match="install onnxruntime-gpu instead"):
        read_settings({}, Device("GPU"), ["CPUExecutionProvider"])
