"""Sessions of ONNX Runtime with the options of this processor that are served."""

import onnx_ir as ir
import onnxruntime

from reward_contract.cpu import session_entries


def session_of(model: ir.Model) -> onnxruntime.InferenceSession:
    """A session on the CPU, whose int8 product is exact on any processor."""
    options = onnxruntime.SessionOptions()
    for entry in session_entries().items():
        options.add_session_config_entry(*entry)
    return onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
