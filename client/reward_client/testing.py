"""A server in the test's process that keeps the contract, for tests of code that uses the client.

    with FakeServer(lambda ids: ids[:, 0] / 100) as server:
        with RewardClient(server.url) as client:
            client.score(["Hi"])

It is not Triton: it does not batch, and has only the methods that the client calls.
"""

import json
import time
from collections.abc import Callable
from concurrent import futures
from types import TracebackType

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from reward_contract import CONTRACT, INPUT_IDS, MODEL_NAME, REWARD, TensorSpec
from reward_contract.facts import Facts, parameter_of
from reward_text import Usage

__all__ = ["FakeServer"]

Ids = NDArray[np.int32]


class FakeServer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # untyped
    """Serves rewards that a function computes, or fails as told.

    Args:
        rewards: computes float rewards [B] for int32 ids [B, S].
        max_batch_rows: the most rows that it takes in a request.
        keep_requests: whether `requests`, `parameters`, `versions` and `headers` are filled.
        credentials: credentials for TLS; no encryption if None.
        port: the port to listen on; any free one if 0.
        usage: how its version 1 wants to be asked; if None, it says nothing about that.

    Attributes:
        requests: the ids of every request, in the order they came.
        parameters: Triton's `priority` and `timeout` (microseconds) of every request.
        versions: the model version that every request asked for; "" for the server's choice.
        headers: headers of every call, whatever its method.
        n_cancelled: requests whose caller gave up before they were answered.
        fail_with: gRPC status code and message to answer every call with, or None to serve.
        delay_s: seconds to wait before rewards are answered.
        version: the model version that it answers as.
        config: the model configuration that it reports; change it to break the contract.
    """

    def __init__(  # noqa: PLR0913  # by keyword, each with a default
        self,
        rewards: Callable[[Ids], NDArray[np.float32]],
        *,
        max_batch_rows: int = 128,
        keep_requests: bool = True,
        credentials: grpc.ServerCredentials | None = None,
        port: int = 0,
        usage: Usage | None = None,
    ) -> None:
        self._rewards = rewards
        self._keep_requests = keep_requests
        self.requests: list[Ids] = []
        self.parameters: list[dict[str, int]] = []
        self.versions: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.n_cancelled = 0
        self.fail_with: tuple[grpc.StatusCode, str] | None = None
        self.delay_s = 0.0
        self.version = 1
        self.config = contract_config(max_batch_rows)
        if usage is not None:
            self.show(usage)
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        address = f"127.0.0.1:{port}"
        if credentials is None:
            self._port = self._server.add_insecure_port(address)
        else:
            self._port = self._server.add_secure_port(address, credentials)

    @property
    def url(self) -> str:
        """Host and port for clients."""
        return f"127.0.0.1:{self._port}"

    def __enter__(self) -> "FakeServer":
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.stop(grace=None).wait()

    def show(  # what the exporter writes
        self,
        usage: Usage,
        version: int = 1,
        *,
        source: str = "fake",
        sha256: str = "00",
        precision: str | None = None,
    ) -> None:
        """Set what the server says about a version: how it wants to be asked, and what it is.

        Args:
            usage: its format, window and calibration.
            version: its number.
            source: hub id or folder of its checkpoint.
            sha256: SHA-256 of its graph; a different one means a different model.
            precision: of its graph.
        """
        facts = Facts(
            golden=None,
            sha256={"model.onnx": sha256},
            usage=usage.as_json(),
            source=source,
            precision=precision,
        )
        text = json.dumps(facts.as_json())
        self.config.parameters[parameter_of(version)].string_value = text

    def ServerMetadata(  # noqa: N802  # the protocol's name
        self, _request: service_pb2.ServerMetadataRequest, context: grpc.ServicerContext
    ) -> service_pb2.ServerMetadataResponse:
        """The server's name and version."""
        self._receive(context)
        return service_pb2.ServerMetadataResponse(name="fake", version="0")

    def ModelMetadata(  # noqa: N802
        self, request: service_pb2.ModelMetadataRequest, context: grpc.ServicerContext
    ) -> service_pb2.ModelMetadataResponse:
        """The model's metadata, with `version` as its only version."""
        self._receive(context)
        return service_pb2.ModelMetadataResponse(name=request.name, versions=[str(self.version)])

    def ModelConfig(  # noqa: N802
        self, _request: service_pb2.ModelConfigRequest, context: grpc.ServicerContext
    ) -> service_pb2.ModelConfigResponse:
        """The model's configuration, `config`."""
        self._receive(context)
        return service_pb2.ModelConfigResponse(config=self.config)

    def ModelInfer(  # noqa: N802
        self, request: service_pb2.ModelInferRequest, context: grpc.ServicerContext
    ) -> service_pb2.ModelInferResponse:
        """The rewards of the request's ids, or the failure set in `fail_with`."""
        ids = np.frombuffer(request.raw_input_contents[0], np.int32)
        ids = ids.reshape(tuple(request.inputs[0].shape))
        if self._keep_requests:
            self.requests.append(ids)
            self.versions.append(request.model_version)
            self.parameters.append(
                {
                    name: parameter.uint64_param or parameter.int64_param
                    for name, parameter in request.parameters.items()
                }
            )
        time.sleep(self.delay_s)
        self._receive(context)
        self.n_cancelled += not context.is_active()
        if len(ids) > self.config.max_batch_size:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "batch-size above max_batch_size")
        rewards = np.asarray(self._rewards(ids), np.float32).reshape(-1, 1)
        response = service_pb2.ModelInferResponse(
            model_name=request.model_name, model_version=str(self.version)
        )
        response.outputs.add(name=REWARD.name, datatype=REWARD.dtype, shape=rewards.shape)
        response.raw_output_contents.append(rewards.tobytes())
        return response

    def _receive(self, context: grpc.ServicerContext) -> None:
        if self._keep_requests:
            self.headers.append(dict(context.invocation_metadata()))
        if self.fail_with is not None:
            context.abort(*self.fail_with)


def contract_config(max_batch_rows: int) -> model_config_pb2.ModelConfig:
    """A model configuration that keeps the contract."""
    return model_config_pb2.ModelConfig(
        name=MODEL_NAME,
        max_batch_size=max_batch_rows,
        input=[model_config_pb2.ModelInput(**_fields(INPUT_IDS))],
        output=[model_config_pb2.ModelOutput(**_fields(REWARD))],
        parameters={
            key: model_config_pb2.ModelParameter(string_value=value)
            for key, value in CONTRACT.as_parameters().items()
        },
    )


def _fields(tensor: TensorSpec) -> dict[str, object]:
    data_type = model_config_pb2.DataType.Value(f"TYPE_{tensor.dtype}")
    return {"name": tensor.name, "data_type": data_type, "dims": tensor.dims}
