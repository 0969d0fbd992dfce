"""Has a running server, here or elsewhere, score the golden rows of the versions that it serves.

This is plain gRPC with Triton's own messages, so it does not need the client package.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from reward_contract import INPUT_IDS, MODEL_NAME, REWARD
from reward_contract.facts import MANIFEST_NAME, Facts, Golden, parameter_of
from reward_contract.integrity import damage, read_facts
from reward_serve.errors import VerifyError
from reward_serve.view import models_of, versions_of

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Target:
    """A model on a server to verify.

    Attributes:
        url: host and port of the server's gRPC service.
        timeout_s: seconds that each request may take.
        roots: PEM file of the authorities to trust; plain text if None.
        certificate: PEM file of this caller's certificate, for servers that ask for one.
        key: PEM file of that certificate's key.
        model: the model's name.
    """

    url: str
    timeout_s: float = 30.0
    roots: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    model: str = MODEL_NAME

    def channel(self) -> grpc.Channel:
        """Open a channel to the server.

        Raises:
            VerifyError: a file cannot be read.
        """
        if self.roots is None:
            return grpc.insecure_channel(self.url)
        try:
            pem = [p and p.read_bytes() for p in (self.roots, self.key, self.certificate)]
        except OSError as error:
            raise VerifyError(f"cannot read {error.filename}: {error.strerror}") from error
        return grpc.secure_channel(self.url, grpc.ssl_channel_credentials(*pem))


@dataclass(frozen=True, slots=True)
class Row:
    """A golden row and the server's reward for it.

    Attributes:
        version: the model's version.
        tokens: length of the row.
        reward: the server's reward, float32.
        wanted: PyTorch's reward.
        tolerance: the largest difference allowed between the two.
    """

    version: int
    tokens: int
    reward: float
    wanted: float
    tolerance: float

    @property
    def is_right(self) -> bool:
        """Whether the two rewards differ by no more than the tolerance."""
        return abs(self.reward - self.wanted) <= self.tolerance  # False for NaN


def verify(target: Target, repository: Path | None = None) -> Iterator[Row]:
    """Have a server score, one by one, the golden rows of each version of a model that it serves.

    Args:
        target: the server and the model.
        repository: where to read the golden rows of a version if the server does not show them.

    Raises:
        VerifyError: the server does not answer, or a version has no golden rows.
    """
    with target.channel() as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        try:
            metadata = stub.ModelMetadata(
                service_pb2.ModelMetadataRequest(name=target.model), timeout=target.timeout_s
            )
            for version in sorted(map(int, metadata.versions)):
                golden = _golden(stub, target, repository, version)
                yield from _rows(version, golden, _rewards(stub, target, version, golden))
        except grpc.RpcError as error:
            raise VerifyError(
                f"{target.url} did not answer: {error.code().name}: {error.details()}"
            ) from error


def exported(repository: Path) -> list[str]:
    """Names of the models of which the exporter has published a version into a repository.

    Raises:
        VerifyError: the repository cannot be read.
    """
    try:
        models = [*models_of(repository)]
    except OSError as error:
        raise VerifyError(f"cannot read {repository}: {error.strerror}") from error
    return [one.name for one in models if any(one.glob(f"[1-9]*/{MANIFEST_NAME}"))]


def damaged(repository: Path, model: str = MODEL_NAME) -> dict[int, str]:
    """What is wrong with each damaged version of a model; {} if all files are as exported.

    Raises:
        VerifyError: the repository has no version of the model.
    """
    folder = repository / model
    versions = (
        {version.number: path for version, path in versions_of(folder)} if folder.is_dir() else {}
    )
    if not versions:
        raise VerifyError(f"{repository} has no version of {model}")
    found = {version: damage(path) for version, path in sorted(versions.items())}
    return {version: what for version, what in found.items() if what is not None}


def _golden(
    stub: service_pb2_grpc.GRPCInferenceServiceStub,
    target: Target,
    repository: Path | None,
    version: int,
) -> Golden:
    request = service_pb2.ModelConfigRequest(name=target.model, version=str(version))
    config = stub.ModelConfig(request, timeout=target.timeout_s).config
    text = config.parameters[parameter_of(version)].string_value
    facts: Facts | None = None
    if text:
        try:
            facts = Facts.from_json(text)
        except ValueError as error:
            raise VerifyError(f"{target.url}, {target.model} version {version}: {error}") from error
    elif repository is not None:
        facts = read_facts(repository / target.model / str(version))
    if facts is None or facts.golden is None:
        raise VerifyError(
            f"{target.url} shows no golden rows of version {version} of {target.model}: its "
            "config.pbtxt predates them or is not the exporter's; give the repository with "
            "--repository, or export again"
        )
    return facts.golden


def _rewards(
    stub: service_pb2_grpc.GRPCInferenceServiceStub, target: Target, version: int, golden: Golden
) -> list[float]:
    found = []
    for row in golden.padded():  # one at a time: the server may not accept a larger batch
        request = service_pb2.ModelInferRequest(model_name=target.model, model_version=str(version))
        request.inputs.add(name=INPUT_IDS.name, datatype=INPUT_IDS.dtype, shape=[1, len(row)])
        request.outputs.add(name=REWARD.name)
        request.raw_input_contents.append(np.array(row, np.int32).tobytes())
        answer = stub.ModelInfer(request, timeout=target.timeout_s)
        content = b"".join(answer.raw_output_contents)
        if len(content) != np.float32().nbytes:
            raise VerifyError(f"{target.url} returned {len(content)} bytes for one reward, not 4")
        found.append(float(np.frombuffer(content, "<f4")[0]))
    return found


def _rows(version: int, golden: Golden, rewards: list[float]) -> Iterator[Row]:
    for row, reward, wanted in zip(golden.rows, rewards, golden.rewards, strict=True):
        yield Row(version, len(row), reward, wanted, golden.tolerance)
