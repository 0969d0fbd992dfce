"""Errors as HTTP answers: one status for each kind, and each protocol's own form of body."""

from collections.abc import Mapping

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from reward_client import (
    DeadlineError,
    InvalidInputError,
    ModelNotReadyError,
    NonFiniteRewardError,
    OverloadedError,
    RewardError,
    UnavailableError,
)
from reward_contract.errors import NoFormatError

RETRY_AFTER_S = 1
BAD_GATEWAY = 502  # any other error of the reward server
UNAUTHORIZED = 401
UNPROCESSABLE = 422

STATUS: dict[type[RewardError], int] = {
    NoFormatError: 501,
    InvalidInputError: UNPROCESSABLE,
    NonFiniteRewardError: UNPROCESSABLE,
    OverloadedError: 503,
    UnavailableError: 503,
    ModelNotReadyError: 503,
    DeadlineError: 504,
}


class GatewayError(Exception):
    """An error that is answered over HTTP.

    Args:
        status: HTTP status.
        message: what is wrong and what to do; without any text of a conversation.
        kind: the error's name, for programs.
        retry_after_s: seconds after which the caller may try again; None if that would not help.
    """

    def __init__(
        self, status: int, message: str, kind: str, *, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """The answer's own headers."""
        if self.status == UNAUTHORIZED:
            return {"www-authenticate": "Bearer"}
        return {} if self.retry_after_s is None else {"retry-after": str(self.retry_after_s)}


def gateway_error(error: Exception) -> GatewayError:
    """The HTTP error for an exception of any expected kind; others are raised again."""
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, RewardError):
        kinds = (kind for kind in STATUS if isinstance(error, kind))
        status = STATUS[kind] if (kind := next(kinds, None)) else BAD_GATEWAY
        retry_after_s = RETRY_AFTER_S if status == STATUS[OverloadedError] else None
        return GatewayError(status, str(error), type(error).__name__, retry_after_s=retry_after_s)
    if isinstance(error, RequestValidationError):
        return GatewayError(UNPROCESSABLE, _fields(error), "InvalidInputError")
    if isinstance(error, HTTPException):
        return GatewayError(error.status_code, str(error.detail), "HTTPException")
    raise error


def body_of(refusal: GatewayError, path: str) -> Mapping[str, object]:
    """The JSON that the protocol of a path uses for errors."""
    message, kind = refusal.message, refusal.kind
    if path == "/get_reward":
        return {"error": kind, "message": message}
    if path == "/rerank":  # TEI's fields, and those that other clients look for
        return {"error": message, "error_type": kind, "message": message, "detail": message}
    error = {"message": message, "type": kind, "param": None, "code": refusal.status}
    return {"error": error, "message": message, "detail": message}


async def refuse(request: Request, error: Exception) -> JSONResponse:
    """Answer with an error."""
    refusal = gateway_error(error)
    request.scope.setdefault("state", {})["refused"] = refusal.kind
    body = body_of(refusal, request.url.path)
    return JSONResponse(body, refusal.status, headers=refusal.headers)


def _fields(error: RequestValidationError) -> str:
    """What is wrong with which fields, without their values."""
    found = [
        f"{'.'.join(str(part) for part in one['loc'][1:]) or 'the body'}: {_said(one)}"
        for one in error.errors()
    ]
    return "; ".join(found[:5])


def _said(one: Mapping[str, object]) -> str:
    if one["type"] == "extra_forbidden":
        return "this gateway has no such option"
    return str(one["msg"])
