"""gRPC's status codes and Triton's messages, mapped to this package's errors in one table."""

import re

import grpc

from reward_client.errors import (
    DeadlineError,
    InternalError,
    ModelNotFoundError,
    ModelNotReadyError,
    OverloadedError,
    RejectedError,
    ServerError,
    UnavailableError,
)

NO_ANSWER = "DEADLINE_EXCEEDED"  # gRPC's own; Triton's queue reports its time-outs as UNAVAILABLE

_BY_CODE: dict[str, type[ServerError]] = {
    "UNAVAILABLE": UnavailableError,
    "NOT_FOUND": ModelNotFoundError,
    "RESOURCE_EXHAUSTED": OverloadedError,
    NO_ANSWER: DeadlineError,
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

# Triton answers UNAVAILABLE for all of these, and NOT_FOUND for some if a model's metadata is asked
# for; only the messages tell them apart. They are in Triton core's scheduler_utils.cc,
# dynamic_batch_scheduler.cc and model_repository_manager.cc.
_BY_WORDS: dict[str, type[ServerError]] = {
    "exceeds maximum queue size": OverloadedError,
    "request timeout expired": DeadlineError,
    "is not at ready state": ModelNotReadyError,
    "has no available versions": ModelNotReadyError,
    "request for unknown model": ModelNotFoundError,  # the two above may begin like this
}

# Triton's messages, with INTERNAL, if the process that runs the model has died or did not move for
# a second (python_be.cc in Triton's Python backend). Another instance may answer, or the process
# that `gpt2-reward serve` starts instead.
_NO_PROCESS = re.compile(r"stub process .*is not healthy|failed to obtain the health mutex")
_PROCESS_REMEDY = "the model's process has died or is stalled; the server's log may say why"

# gRPC's own messages about a server that does not speak gRPC: `HTTP/1.1 400` read as an HTTP/2
# frame has the type 80, `P`, and a page without a header that begins with `<!DO` has the type 79.
_NOT_GRPC = re.compile(r"http1\.x server|settings frame as the first frame, got frame type (79|80)")

# gRPC's messages about connections that could not be made, or broke: no server has worked on the
# request
_TRANSPORT = re.compile(
    r"failed to connect|backends failing|connection (refused|reset|attempt|timed out)|"
    r"socket closed|broken pipe|stream removed|goaway|dns resolution|name resolution|keepalive|"
    r"transport closed|end of tcp stream|ping timeout|no route to host|network is unreachable"
)

# gRPC's messages about Triton's HTTP server, which accepts a connection and closes it without an
# answer; and, before gRPC 1.67, about anything else that is not gRPC
_CLOSED_AT_ONCE = re.compile(
    r"(failed to connect|backends failing).*(socket closed|failed parsing http/2)", re.DOTALL
)
_OTHER_PORTS = (
    "something listens there but closes the connection without speaking gRPC, as do Triton's HTTP "
    "and metrics ports (8000 and 8002 unless changed) and servers that require TLS; Triton's gRPC "
    "port is 8001 unless changed"
)

_REMEDIES: dict[type[ServerError], str] = {
    UnavailableError: "is a server running there, and has it finished loading?",
    ModelNotReadyError: "it is loading, or its version has been taken out of service",
    ModelNotFoundError: "publish it into the server's repository, or ask for another version",
    OverloadedError: "send fewer requests at a time, or try again later",
    DeadlineError: "allow more time, or ask when the server is less busy",
}


def server_error(error: grpc.RpcError, url: str) -> ServerError:
    """The typed error for an RPC that failed at a server, or on the way to it."""
    code, words = error.code().name, (error.details() or "").strip()
    kind = _BY_CODE.get(code, InternalError)
    if kind is UnavailableError and _NOT_GRPC.search(words.lower()):
        return RejectedError(
            f"{url} speaks HTTP/1, not gRPC: is it Triton's HTTP or metrics port (8000 and "
            "8002 unless changed)? Ask its gRPC port, 8001 unless changed",
            url=url,
            code=code,
        )
    if kind in (UnavailableError, ModelNotFoundError):
        kind = next((kind for part, kind in _BY_WORDS.items() if part in words.lower()), kind)
    remedy = f"; {_REMEDIES[kind]}" if kind in _REMEDIES else ""
    if kind is InternalError and _NO_PROCESS.search(words.lower()):
        kind, remedy = UnavailableError, f"; {_PROCESS_REMEDY}"
    if kind is UnavailableError and _CLOSED_AT_ONCE.search(words.lower()):
        remedy = f"; {_OTHER_PORTS}"
    return kind(f"{url} answered {code}: {words}{remedy}", url=url, code=code)


def was_reached(error: ServerError) -> bool:
    """Whether a server has worked on the request, as far as gRPC's message tells."""
    return not _TRANSPORT.search(str(error).lower())
