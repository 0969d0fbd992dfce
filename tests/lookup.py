"""A small model other than the reward model, to test serving with."""

from pathlib import Path

import numpy as np
import onnx_ir as ir

from reward_export.ops import Ops, tensor_input
from reward_serve.server import ServerOptions

CONFIG = """
name: "{name}"
backend: "onnxruntime"
max_batch_size: 64
input [ {{ name: "x" data_type: TYPE_INT64 dims: [ -1 ] }} ]
output [ {{ name: "y" data_type: TYPE_INT64 dims: [ -1 ] }} ]
dynamic_batching {{ max_queue_delay_microseconds: 200000 }}
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
{more}
"""


def add_model(repository: Path, name: str, *, more: str = "") -> Path:
    """Add a model that looks `x` up in 0, 10, 20, 30, 40, and fails beyond that. -> its folder."""
    op = Ops()
    x = tensor_input("x", ir.DataType.INT64, ("batch", "n"))
    y = op.Gather(op.weight("table", np.arange(0, 50, 10)), x)
    y.name, y.type, y.shape = "y", ir.TensorType(ir.DataType.INT64), ir.Shape(("batch", "n"))
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    ir.save(op.model([x], [y]), folder / "1" / "model.onnx")
    (folder / "config.pbtxt").write_text(CONFIG.format(name=name, more=more))
    return folder


def free_ports(repository: Path, *triton_options: str) -> ServerOptions:
    """Options of a server on free ports."""
    return ServerOptions(
        repository, grpc_port=0, http_port=0, metrics_port=0, triton_options=triton_options
    )
