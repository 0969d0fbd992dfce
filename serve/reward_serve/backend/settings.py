"""Turns a model's configuration into an ONNX Runtime session, reading it as the C++ backend does.

Source of the keys and their meanings: the documentation and source of
triton-inference-server/onnxruntime_backend.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import onnxruntime

from reward_contract.cpu import session_entries

# a model configuration as Triton hands it over, parsed from JSON
Config = Mapping[str, Any]  # type: ignore[explicit-any,unused-ignore]
T = TypeVar("T")

ALL_ON = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
LEVELS = {
    -1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
# top-level parameters take the number in onnxruntime's C enumeration, its Python API the name
ARENA_STRATEGIES = {"0": "kNextPowerOfTwo", "1": "kSameAsRequested"}
CONV_SEARCHES = {"0": "EXHAUSTIVE", "1": "HEURISTIC", "2": "DEFAULT"}
SWITCHES = {"0": False, "false": False, "1": True, "true": True}
SPINNING = "session.intra_op.allow_spinning"
DEVICES = "devices"  # in a graph's metadata: the kinds of device it is for, such as "cpu cuda"
SHRINKAGE = "memory.enable_memory_arena_shrinkage"


class ConfigError(ValueError):
    """The configuration asks for something that this backend or this machine cannot do."""


@dataclass(frozen=True, slots=True)
class Device:
    """Where an instance runs: `kind` is CPU or GPU, `id` the GPU's number."""

    kind: str
    id: int = 0


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Settings of an ONNX Runtime session."""

    providers: tuple[tuple[str, dict[str, str]], ...]
    optimization: onnxruntime.GraphOptimizationLevel = ALL_ON
    intra_op_threads: int = 0
    inter_op_threads: int = 0
    parallel: bool = False
    memory_arena: bool = True
    memory_pattern: bool = True
    run_entries: Mapping[str, str] = field(default_factory=dict)


def read_settings(config: Config, device: Device, available: Sequence[str]) -> SessionSettings:
    """The session that a model's configuration asks for.

    Args:
        config: the model configuration, parsed.
        device: where this instance runs.
        available: execution providers that the installed ONNX Runtime has.

    Raises:
        ConfigError: a value is malformed, or the device's provider is not installed.
    """
    parameters = {
        key: value.get("string_value", "") for key, value in config.get("parameters", {}).items()
    }
    optimization = config.get("optimization", {})
    level = optimization.get("graph", {}).get("level", 0)
    shrink = _read(parameters, SHRINKAGE, _arenas, "")
    return SessionSettings(
        providers=_providers(optimization, parameters, device, available),
        optimization=LEVELS.get(int(level), ALL_ON),
        intra_op_threads=_read(parameters, "intra_op_thread_count", _count, 0),
        inter_op_threads=_read(parameters, "inter_op_thread_count", _count, 0),
        parallel=_read(parameters, "execution_mode", _mode, default=False),
        memory_arena=_read(parameters, "enable_mem_arena", _switch, default=True),
        memory_pattern=_read(parameters, "enable_mem_pattern", _switch, default=True),
        run_entries={SHRINKAGE: shrink} if shrink else {},
    )


def open_session(path: str, settings: SessionSettings) -> onnxruntime.InferenceSession:
    """Open a session on the wanted provider; fail rather than fall back to another one.

    Raises:
        ConfigError: the provider did not start, or the graph is not for it.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = settings.optimization
    options.intra_op_num_threads = settings.intra_op_threads
    options.inter_op_num_threads = settings.inter_op_threads
    if settings.parallel:
        options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.enable_cpu_mem_arena = settings.memory_arena
    options.enable_mem_pattern = settings.memory_pattern
    # threads that spin after a run keep Triton from its next batch: it then sleeps for 0.5 s
    options.add_session_config_entry(SPINNING, "0")
    for entry in session_entries().items():
        options.add_session_config_entry(*entry)
    wanted = settings.providers[0][0]
    if wanted == CUDA and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA installed by pip is not on any library path
    session = onnxruntime.InferenceSession(path, options, providers=list(settings.providers))
    if session.get_providers()[0] != wanted:  # ONNX Runtime only warns when a library is missing
        raise ConfigError(
            f"ONNX Runtime could not start {wanted}, and would use "
            f"{session.get_providers()[0]} instead; look for its warning above"
        )
    refuse_other_devices(session.get_modelmeta().custom_metadata_map, wanted)
    return session


def refuse_other_devices(metadata: Mapping[str, str], provider: str) -> None:
    """Refuse a graph on a kind of device that its file says it is not for.

    Args:
        metadata: the file's; a graph whose file names no devices is for all.
        provider: the one that the session runs on.

    Raises:
        ConfigError: the graph would be useless there, or fail at its first request.
    """
    kinds = {CPU: "cpu", CUDA: "cuda"}
    made_for = metadata.get(DEVICES, " ".join(kinds.values())).split()
    if kinds[provider] not in made_for:
        raise ConfigError(
            f"the graph was exported for {' and '.join(made_for)}, and this instance runs on "
            f"{kinds[provider]}; export it with --device {kinds[provider]} (fp16 or fp32 on a "
            f"GPU, fp32 or int8 on a CPU), or set the instance group's kind"
        )


def _providers(
    optimization: Config, parameters: Mapping[str, str], device: Device, available: Sequence[str]
) -> tuple[tuple[str, dict[str, str]], ...]:
    accelerators = optimization.get("execution_accelerators", {})
    if device.kind == "CPU":
        _accelerator_options(accelerators.get("cpu_execution_accelerator", []), known=None)
        return ((CPU, {}),)
    if CUDA not in available:
        raise ConfigError(
            f"a GPU instance needs {CUDA}, and the installed ONNX Runtime has only "
            f"{', '.join(available)}; install onnxruntime-gpu instead of onnxruntime, or set "
            "the instance group's kind to KIND_CPU"
        )
    options = {
        **_accelerator_options(accelerators.get("gpu_execution_accelerator", []), known="cuda"),
        **_cuda_parameters(parameters),
        "device_id": str(device.id),
    }
    # nodes that CUDA has no kernel for, mostly shape computations, run on the CPU
    return ((CUDA, options), (CPU, {}))


def _accelerator_options(accelerators: Sequence[Config], *, known: str | None) -> dict[str, str]:
    """ONNX Runtime's own options of the one accelerator that this backend knows."""
    options: dict[str, str] = {}
    for accelerator in accelerators:
        if accelerator["name"] != known:
            raise ConfigError(
                f"only the C++ backend has the execution accelerator {accelerator['name']!r}; "
                "remove it here"
            )
        options.update(accelerator.get("parameters", {}))
    return options


def _cuda_parameters(parameters: Mapping[str, str]) -> dict[str, str]:
    """CUDA options among the top-level parameters, which override others as in the C++ backend."""
    readers: dict[str, Callable[[str], str]] = {
        "gpu_mem_limit": lambda text: str(_count(text)),
        "arena_extend_strategy": _one_of(ARENA_STRATEGIES),
        "cudnn_conv_algo_search": _one_of(CONV_SEARCHES),
        "do_copy_in_default_stream": lambda text: str(int(_switch(text))),
    }
    return {
        key: _read(parameters, key, parse, "")
        for key, parse in readers.items()
        if parameters.get(key)
    }


def _read(parameters: Mapping[str, str], key: str, parse: Callable[[str], T], default: T) -> T:
    text = parameters.get(key, "")
    if not text:
        return default
    try:
        return parse(text)
    except ValueError as error:
        raise ConfigError(f"parameter {key} is {text!r}; {error}") from error


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ValueError("it has to be a whole number, 0 or more")
    return int(text)


def _one_of(values: Mapping[str, T]) -> Callable[[str], T]:
    def parse(text: str) -> T:
        if text.lower() not in values:
            raise ValueError(f"it has to be one of {', '.join(values)}")
        return values[text.lower()]

    return parse


_switch = _one_of(SWITCHES)
_mode = _one_of({"0": False, "1": True})  # sequential, parallel


def _arenas(text: str) -> str:
    # an error here keeps the model from loading; ONNX Runtime would fail each request instead
    if not re.fullmatch(r"(cpu|gpu):\d+(;(cpu|gpu):\d+)*", text):
        raise ValueError("it has to name arenas, such as cpu:0 or cpu:0;gpu:0")
    return text
