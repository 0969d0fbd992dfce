"""Triton's `model.py` of a gated model: the served backend, which executes while a gate is open.

Copied into a version's folder by `running.gated`. The gate is a file lock, so a killed test
releases it.
"""

import fcntl
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reward_serve.backend import model


class TritonPythonModel(model.TritonPythonModel):
    """Records the ids that it is given, then waits until the gate is open."""

    def initialize(self, args: Mapping[str, str]) -> None:
        config = json.loads(args["model_config"]) | {"default_model_filename": "model.onnx"}
        super().initialize({**args, "model_config": json.dumps(config)})
        self._folder = Path(config["parameters"]["gate"]["string_value"])

    def execute(self, requests: Sequence[Any]) -> list[object]:
        ids = [self._arrays(request)["input_ids"].tolist() for request in requests]
        with (self._folder / "executions").open("a") as file:
            file.write(json.dumps(ids) + "\n")
        with (self._folder / "gate").open() as gate:
            fcntl.flock(gate, fcntl.LOCK_SH)
        return super().execute(requests)
