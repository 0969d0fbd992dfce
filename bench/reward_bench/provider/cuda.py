"""The CUDA provider's options, as our backend reads them from the checked-in configuration."""

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from reward_bench.suite import ROOT
from reward_contract import MODEL_NAME
from reward_serve.backend.settings import Device, read_settings

CONFIG = ROOT / "model_repository" / MODEL_NAME / "config.pbtxt"
BOTH = ("CUDAExecutionProvider", "CPUExecutionProvider")


def cuda_options() -> dict[str, str]:
    """The provider's options for an instance on the first GPU."""
    message = text_format.Parse(CONFIG.read_text(), model_config_pb2.ModelConfig())
    config = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return read_settings(config, Device("GPU"), BOTH).providers[0][1]
