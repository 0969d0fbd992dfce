"""What is sent to Triton and what comes back, checked; no I/O, so that clients can share it."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2, service_pb2

from reward_client.errors import ContractError, NonFiniteRewardError
from reward_client.results import ModelInfo, RankedCandidate, Rewards, Scores
from reward_contract import CONTRACT, INPUT_IDS, REWARD, TensorSpec
from reward_contract.facts import Facts, parameter_of
from reward_text import Usage

MAX_LISTED = 10  # so that messages stay readable


def batches(ids: NDArray[np.int32], max_rows: int) -> Iterator[NDArray[np.int32]]:
    """`ids` [B, S] in pieces of at most `max_rows` rows, in order; none for B = 0."""
    for start in range(0, len(ids), max_rows):
        yield ids[start : start + max_rows]


def request_of(
    ids: NDArray[np.int32], *, model: str, version: str, priority_level: int | None
) -> service_pb2.ModelInferRequest:
    """int32 [B, S] as a request for the rewards of its rows.

    Args:
        ids: token ids, padded on the right.
        model: name of the model.
        version: version of the model; "" for the server's choice.
        priority_level: Triton's, 1 first; the server's default if None.
    """
    request = service_pb2.ModelInferRequest(model_name=model, model_version=version)
    request.inputs.add(name=INPUT_IDS.name, datatype=INPUT_IDS.dtype, shape=ids.shape)
    request.raw_input_contents.append(ids.tobytes())
    request.outputs.add(name=REWARD.name)
    if priority_level is not None:
        request.parameters["priority"].uint64_param = priority_level
    return request


def set_time_left(request: service_pb2.ModelInferRequest, seconds: float) -> None:
    """Have the server drop the request from its queue once its caller has stopped waiting."""
    request.parameters["timeout"].int64_param = max(int(seconds * 1e6), 1)  # microseconds


def rewards_of(response: service_pb2.ModelInferResponse, n_rows: int) -> Rewards:
    """The rewards of a response. -> float32 [B].

    Raises:
        ContractError: the response is not one float32 per row.
    """
    found = [
        (output.name, output.datatype, list(output.shape), len(content))
        for output, content in zip(response.outputs, response.raw_output_contents, strict=False)
    ]
    if found != [(REWARD.name, REWARD.dtype, [n_rows, 1], 4 * n_rows)]:
        answer = ", ".join(f"{name} {dtype} {shape}" for name, dtype, shape, _ in found)
        raise ContractError(
            f"the server answered {answer or 'nothing'}; the contract says "
            f"{REWARD.name} {REWARD.dtype} [{n_rows}, 1]"
        )
    return np.frombuffer(response.raw_output_contents[0], "<f4").astype(np.float32)


def version_of(response: service_pb2.ModelInferResponse) -> int:
    """The version of the model that answered.

    Raises:
        ContractError: the response does not say.
    """
    version = response.model_version
    if not version.isdecimal():
        raise ContractError(f"the server says that version {version!r} answered; expected a number")
    return int(version)


def check_one_version(versions: Sequence[int]) -> None:
    """Refuse rewards of one call that different versions gave: they are not comparable.

    Raises:
        ContractError: the model was replaced between two requests of the call.
    """
    if len(set(versions)) > 1:
        raise ContractError(
            f"versions {listed(sorted(set(versions)))} of the model answered parts of one call: it "
            "was replaced meanwhile; call again, or pin one with model_version"
        )


def check_finite(rewards: Rewards) -> None:
    """Refuse rewards that are NaN or infinite.

    Raises:
        NonFiniteRewardError: some are; the error names the rows.
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


def ranked(candidates: Sequence[str], scores: Scores, rows: slice) -> tuple[RankedCandidate, ...]:
    """Candidates, best first; equal ones in the order of the input, NaN last.

    Args:
        candidates: as given.
        scores: scores of all rows of a call.
        rows: which of them are these candidates'.
    """
    order = np.argsort(-scores.rewards[rows], kind="stable").tolist()
    rewards, n_tokens, is_cut, probabilities = (
        values[rows].tolist()
        for values in (scores.rewards, scores.lengths, scores.is_truncated, scores.probabilities)
    )
    return tuple(
        RankedCandidate(candidates[i], rewards[i], i, n_tokens[i], is_cut[i], probabilities[i])
        for i in order
    )


def check_config(config: model_config_pb2.ModelConfig, url: str) -> int:
    """Hold a server's model configuration to the contract, and return its largest batch.

    Raises:
        ContractError: they differ; the error lists every field that does.
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
            f"the model {config.name} at {url} does not keep this client's contract:\n  "
            + "\n  ".join(differences),
            differences=tuple(differences),
        )
    return int(config.max_batch_size)


def model_info(config: model_config_pb2.ModelConfig, version: int, url: str) -> ModelInfo:
    """What a server's model configuration says about a version; the rest is unknown.

    Raises:
        ContractError: it says something that this client cannot read.
    """
    text = config.parameters[parameter_of(version)].string_value
    if not text:
        return ModelInfo(version)
    try:
        facts = Facts.from_json(text)
        usage = Usage.from_json(facts.usage)
    except ValueError as error:
        raise ContractError(
            f"this client cannot read what the server at {url} says about version {version} of "
            f"{config.name}: {error}; export the version again, or update gpt2-reward"
        ) from error
    return ModelInfo(
        version,
        usage,
        facts.identity,
        facts.source,
        facts.revision,
        facts.golden,
        facts.precision,
    )


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
