"""What Triton loads: one ONNX Runtime session for each model instance.

Triton treats the folder that holds this file as the backend of that name, and runs it in
a separate process for each instance. It serves the configurations that the C++
`onnxruntime` backend serves. Strings on the wire are UTF-8.
"""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from reward_serve.backend.batching import Arrays, run_apart, run_together
from reward_serve.backend.settings import (
    Config,
    ConfigError,
    Device,
    open_session,
    read_settings,
)
from reward_serve.backend.turns import turns


class TritonPythonModel:
    """One instance of a model; Triton calls its methods by these names."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the session, and check the graph against the configuration."""
        # by this name the launcher recognises a process, even a dead one; 15 bytes are shown
        Path("/proc/self/comm").write_text(f"v{args['model_version']} {args['model_name']}"[:15])
        config: Config = json.loads(args["model_config"])
        file = config.get("default_model_filename") or "model.onnx"
        path = Path(args["model_repository"]) / args["model_version"] / file
        if not path.is_file():
            raise ConfigError(f"there is no {path}")
        device = Device(args["model_instance_kind"], int(args["model_instance_device_id"]))
        settings = read_settings(config, device, onnxruntime.get_available_providers())
        self._session = open_session(str(path), settings)
        lock = f"{args['model_name']}-{args['model_version']}.lock"  # a server has its own TMPDIR
        self._turn = turns(Path(tempfile.gettempdir()) / lock, device, settings)
        self._next_log, self._untold = 0.0, 0
        self._run_options = onnxruntime.RunOptions()
        for key, value in settings.run_entries.items():
            self._run_options.add_run_config_entry(key, value)
        # without a batch dimension there is nothing to join requests along
        self._run_all = run_together if config.get("max_batch_size", 0) > 0 else run_apart
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]
        check_tensors("input", config["input"], self._session.get_inputs())
        check_tensors("output", config["output"], self._session.get_outputs())

    def execute(self, requests: Sequence["pb_utils.InferenceRequest"]) -> list[object]:
        """Answer the requests that Triton's batcher hands over, in their order."""
        with self._turn():
            gone = [request.is_cancelled() for request in requests]
            waiting = [request for request, left in zip(requests, gone, strict=True) if not left]
            found = self._run_all([self._arrays(request) for request in waiting], self._run)
        self._log_failures(found)
        answers = iter(found)
        return [
            _refusal("the request was cancelled", pb_utils.TritonError.CANCELLED)
            if left
            else self._response(request, next(answers))
            for request, left in zip(requests, gone, strict=True)
        ]

    def _log_failures(self, answers: Sequence[Arrays | Exception]) -> None:
        """Log at most one line per second, with the number of failures since the previous line."""
        failures = [answer for answer in answers if isinstance(answer, Exception)]
        self._untold += len(failures)
        if failures and time.monotonic() >= self._next_log:
            pb_utils.Logger.log_error(
                f"{self._untold} requests failed, the last: {_first_line(failures[-1])}"
            )
            self._next_log, self._untold = time.monotonic() + 1, 0

    def _arrays(self, request: "pb_utils.InferenceRequest") -> Arrays:
        return {
            name: pb_utils.get_input_tensor_by_name(request, name).as_numpy()
            for name in self._inputs
        }

    def _run(self, inputs: Arrays) -> Arrays:
        feed = {name: _as_text(array) for name, array in inputs.items()}
        outputs = self._session.run(self._outputs, feed, self._run_options)
        return dict(zip(self._outputs, outputs, strict=True))

    def _response(
        self, request: "pb_utils.InferenceRequest", answer: Arrays | Exception
    ) -> "pb_utils.InferenceResponse":
        if isinstance(answer, Exception):
            return _refusal(str(answer), pb_utils.TritonError.INTERNAL)
        wanted = request.requested_output_names()
        tensors = [pb_utils.Tensor(name, answer[name]) for name in self._outputs if name in wanted]
        return pb_utils.InferenceResponse(output_tensors=tensors)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _refusal(message: str, code: int) -> "pb_utils.InferenceResponse":
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))


def _as_text(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Decode strings: given bytes, ONNX Runtime would take their representation, b'...'."""
    if array.dtype != np.object_:
        return array
    texts = [text.decode() for text in array.ravel()]
    return np.array(texts, np.object_).reshape(array.shape)


def check_tensors(
    kind: str,
    configured: Sequence[Config],
    found: Sequence[onnxruntime.NodeArg],
) -> None:
    """Check a graph's inputs or outputs against the configured ones.

    Raises:
        ConfigError: one is missing or of another type, or an input is not configured.
    """
    types = {tensor.name: tensor.type for tensor in found}
    for tensor in configured:
        name, wanted = tensor["name"], onnx_type(tensor["data_type"])
        if types.get(name) != wanted:
            raise ConfigError(
                f"the configuration has {kind} {name} as {wanted}; the graph has "
                f"{types.get(name) or 'none of that name, but ' + ', '.join(types)}"
            )
    unset = types.keys() - {tensor["name"] for tensor in configured}
    if kind == "input" and unset:
        raise ConfigError(f"the graph needs inputs that are not configured: {', '.join(unset)}")


def onnx_type(triton_type: str) -> str:
    """ONNX Runtime's name for a type: `TYPE_FP32` is `tensor(float)`.

    Raises:
        ConfigError: numpy, and so this backend, has no such type.
    """
    if triton_type == "TYPE_STRING":
        return "tensor(string)"
    try:
        name = np.dtype(pb_utils.triton_string_to_numpy(triton_type)).name
    except KeyError as error:
        raise ConfigError(f"numpy has no {triton_type}, so this backend cannot serve it") from error
    return f"tensor({ {'float32': 'float', 'float64': 'double'}.get(name, name) })"
