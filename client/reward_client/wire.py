"""What is sent to Triton and what comes back, checked; no I/O, so that clients can share it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput, InferRequestedOutput, InferResult, model_config_pb2
from tritonclient.utils import InferenceServerException

from reward_client.contract import CONTRACT, INPUT_IDS, REWARD, TensorSpec
from reward_client.errors import (
    ContractError,
    DeadlineError,
    InternalError,
    ModelNotFoundError,
    NonFiniteRewardError,
    OverloadedError,
    RejectedError,
    ServerError,
    UnavailableError,
)

Rewards: TypeAlias = NDArray[np.float32]

MAX_LISTED = 10  # a message stays readable

REQUESTED = [InferRequestedOutput(REWARD.name)]


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """Who answers.

    Attributes:
        url: the address that was asked.
        name: what the server calls itself.
        version: of the server, such as `2.51.0`.
        model: name of the model.
        model_versions: its versions that answer, ascending.
        max_batch_rows: rows that fit into one request.
    """

    url: str
    name: str
    version: str
    model: str
    model_versions: tuple[int, ...]
    max_batch_rows: int


@dataclass(frozen=True, slots=True)
class RankedCandidate:
    """One candidate with its reward.

    Attributes:
        text: the candidate, as given.
        reward: the raw logit; higher is better.
        index: its place in the input.
    """

    text: str
    reward: float
    index: int


def batches(ids: NDArray[np.int32], max_rows: int) -> Iterator[NDArray[np.int32]]:
    """`ids` [B, S] in pieces of at most `max_rows` rows, in order; none for B = 0."""
    for start in range(0, len(ids), max_rows):
        yield ids[start : start + max_rows]


def infer_input(ids: NDArray[np.int32]) -> InferInput:
    """int32 [B, S] as the model's one input."""
    tensor = InferInput(INPUT_IDS.name, list(ids.shape), INPUT_IDS.dtype)
    tensor.set_data_from_numpy(ids)
    return tensor


def rewards_of(result: InferResult, n_rows: int) -> Rewards:
    """The rewards of a response. -> float32 [B].

    Raises:
        ContractError: not one float32 a row.
    """
    rewards = result.as_numpy(REWARD.name)
    if rewards is None or rewards.dtype != np.float32 or rewards.shape != (n_rows, 1):
        found = "nothing" if rewards is None else f"{rewards.dtype} {list(rewards.shape)}"
        raise ContractError(
            f"the server answered {found} as {REWARD.name}; the contract says float32 [{n_rows}, 1]"
        )
    return np.asarray(rewards[:, 0], np.float32)


def version_of(result: InferResult) -> int:
    """The version of the model that answered.

    Raises:
        ContractError: the response does not say.
    """
    version = result.get_response().model_version
    if not version.isdecimal():
        raise ContractError(f"the server says that version {version!r} answered; expected a number")
    return int(version)


def check_one_version(versions: Sequence[int]) -> None:
    """Refuse rewards of one call that different versions gave: they do not compare.

    Raises:
        ContractError: the model was exchanged between two requests of the call.
    """
    if len(set(versions)) > 1:
        raise ContractError(
            f"versions {listed(sorted(set(versions)))} of the model answered parts of one call: it "
            "was exchanged meanwhile; call again, or pin one with model_version"
        )


def check_finite(rewards: Rewards) -> None:
    """Refuse rewards that are no numbers to compare.

    Raises:
        NonFiniteRewardError: it names the rows.
    """
    if not np.isfinite(rewards).all():
        rows = tuple(int(row) for row in np.flatnonzero(~np.isfinite(rewards)))
        raise NonFiniteRewardError(
            f"rows {listed(rows)} of {len(rewards)} could not be scored (NaN or "
            "infinity): the checkpoint's weights overflow on them, or ids are outside the "
            "vocabulary",
            rows=rows,
        )


def listed(numbers: Sequence[int]) -> str:
    """Numbers for a message: the first few, and how many more there are."""
    shown = ", ".join(map(str, numbers[:MAX_LISTED]))
    more = len(numbers) - MAX_LISTED
    return f"{shown} and {more} more" if more > 0 else shown


def ranked(candidates: Sequence[str], rewards: Rewards) -> list[RankedCandidate]:
    """Candidates with their rewards, best first; equal ones in the order of the input."""
    order = np.argsort(-rewards, kind="stable")
    return [RankedCandidate(candidates[i], float(rewards[i]), int(i)) for i in order]


def check_config(config: model_config_pb2.ModelConfig, url: str) -> int:
    """Hold a server's model configuration to the contract, and return its largest batch.

    Raises:
        ContractError: it lists every field that differs.
    """
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    differences = [
        *_tensor_differences("input", INPUT_IDS, config.input),
        *_tensor_differences("output", REWARD, config.output),
        *CONTRACT.differences(parameters),
    ]
    if config.max_batch_size < 1:
        differences.append("max_batch_size: server has 0, client needs at least 1")
    if differences:
        raise ContractError(
            f"the model {config.name} at {url} is not the one this client speaks to:\n  "
            + "\n  ".join(differences),
            differences=tuple(differences),
        )
    return int(config.max_batch_size)


def _tensor_differences(
    kind: str,
    wanted: TensorSpec,
    found: Sequence[model_config_pb2.ModelInput] | Sequence[model_config_pb2.ModelOutput],
) -> list[str]:
    """Names, types and dims of the inputs or outputs, one line if they differ."""
    dtype_name = model_config_pb2.DataType.Name  # TYPE_INT32 for what the wire calls INT32
    tensors = [
        f"{tensor.name} {dtype_name(tensor.data_type).removeprefix('TYPE_')} {list(tensor.dims)}"
        for tensor in found
    ]
    expected = f"{wanted.name} {wanted.dtype} {list(wanted.dims)}"
    if tensors == [expected]:
        return []
    return [f"{kind}: server has {', '.join(tensors) or 'none'}, client has {expected}"]


_BY_CODE: dict[str, type[ServerError]] = {
    "UNAVAILABLE": UnavailableError,
    "NOT_FOUND": ModelNotFoundError,
    "RESOURCE_EXHAUSTED": OverloadedError,
    "DEADLINE_EXCEEDED": DeadlineError,
    "INVALID_ARGUMENT": RejectedError,
    "OUT_OF_RANGE": RejectedError,
    "FAILED_PRECONDITION": RejectedError,
    "UNAUTHENTICATED": RejectedError,
    "PERMISSION_DENIED": RejectedError,
    "UNIMPLEMENTED": RejectedError,
    "ALREADY_EXISTS": RejectedError,
    "CANCELLED": InternalError,
    "ABORTED": InternalError,
    "INTERNAL": InternalError,
    "DATA_LOSS": InternalError,
    "UNKNOWN": InternalError,
}

# Triton answers UNAVAILABLE for all of these; only its words tell them apart. They stand in
# its core's scheduler_utils.cc, dynamic_batch_scheduler.cc and model_repository_manager.cc.
_UNAVAILABLE_BY_WORDS: dict[str, type[ServerError]] = {
    "exceeds maximum queue size": OverloadedError,
    "request timeout expired": DeadlineError,
    "request for unknown model": ModelNotFoundError,
    "is not at ready state": ModelNotFoundError,
}

_REMEDIES: dict[type[ServerError], str] = {
    UnavailableError: "is a server running there, and has it finished loading?",
    ModelNotFoundError: "publish it into the server's repository, or ask for another version",
    OverloadedError: "send fewer requests at a time, or try again later",
    DeadlineError: "allow more time, or ask when the server is less busy",
}


def server_error(error: InferenceServerException, url: str) -> ServerError:
    """The typed error for what a server, or the way to it, answered."""
    code = (error.status() or "").removeprefix("StatusCode.") or None
    words = (error.message() or "").strip()
    kind = _BY_CODE.get(code or "", InternalError)
    if kind is UnavailableError:
        kind = next(
            (kind for part, kind in _UNAVAILABLE_BY_WORDS.items() if part in words.lower()), kind
        )
    remedy = f"; {_REMEDIES[kind]}" if kind in _REMEDIES else ""
    return kind(f"{url} answered {code or 'without a status'}: {words}{remedy}", url=url, code=code)
