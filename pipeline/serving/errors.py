"""Errors as OpenAI's clients read them: one envelope, with their statuses, types and codes."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from pipeline.errors import PipelineError

logger = logging.getLogger(__name__)

_BUSY = (429, 503)
_CODES = {
    400: "invalid_value",
    401: "invalid_api_key",
    403: "forbidden",
    404: "unknown_url",
    405: "method_not_allowed",
    408: "request_timeout",
    409: "conflict",
    413: "request_too_large",
    429: "rate_limit_exceeded",
    500: "internal_error",
    503: "not_ready",
    504: "timeout",
}
_VALIDATION_CODES = {
    "missing": "missing_required_parameter",
    "extra_forbidden": "unknown_parameter",
    "literal_error": "unsupported_value",
    "string_too_long": "string_above_max_length",
    "too_long": "array_above_max_length",
    "json_invalid": "invalid_json",
}
_MAX_PROBLEMS = 5
_MAX_CHARS = 300
"""Longest message part or field name that is echoed to a client, characters."""


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str
    """The value received, the limit and the remedy."""
    type: str
    """invalid_request_error, rate_limit_error or server_error."""
    param: str | None
    """Field of the request at fault."""
    code: str | None
    """Machine-readable error code."""


class ErrorEnvelope(BaseModel):
    """Body of every error response."""

    error: ErrorBody
    """What went wrong."""


ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorEnvelope, "description": "The request is refused; `error` says why."},
    "5XX": {"model": ErrorEnvelope, "description": "No audio can be made now."},
}
"""Error responses of every route, for the OpenAPI document."""


class ApiError(Exception):
    """An error response.

    Attributes:
        status: HTTP status.
        message: The value received, the limit and the remedy; the field is put before it.
        param: Field of the request at fault.
        code: Machine-readable error code; None takes the default of the status.
    """

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(status, message, param, code)
        self.status = status
        self.message = message
        self.param = param
        self.code = code


class NotReadyError(RuntimeError):
    """No replica can serve now."""


def error_response(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Build an error response.

    Args:
        status: HTTP status; it decides the type and the default code.
        message: The value received, the limit and the remedy.
        param: Field of the request at fault.
        code: Machine-readable error code; None takes the default of the status.
        headers: Further headers.
    """
    error = error_body(status, message, param=param, code=code)
    return JSONResponse({"error": error}, status, headers=dict(headers or {}))


def error_body(
    status: int, message: str, *, param: str | None = None, code: str | None = None
) -> dict[str, str | None]:
    """The `error` object; arguments as for `error_response`."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {
        "message": _printable(message, _MAX_PROBLEMS * _MAX_CHARS),
        "type": "rate_limit_error" if status == 429 else kind,
        "param": None if param is None else _printable(param, _MAX_CHARS),
        "code": code or _CODES.get(status),
    }


def add_errors(app: FastAPI, retry_after_s: int) -> None:
    """Install handlers that answer every error in OpenAI's envelope; internal causes are logged.

    Args:
        app: The application.
        retry_after_s: Value of Retry-After where the endpoint is busy, seconds.
    """

    def answer(status: int, message: str, **more: Any) -> JSONResponse:
        """The error response, with Retry-After where the endpoint is busy."""
        response = error_response(status, message, **more)
        if status in _BUSY:
            response.headers["Retry-After"] = str(retry_after_s)
        return response

    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> JSONResponse:
        """A refusal names its field."""
        message = f"{error.param}: {error.message}" if error.param else error.message
        return answer(error.status, message, param=error.param, code=error.code)

    @app.exception_handler(NotReadyError)
    async def not_ready(_: Request, error: NotReadyError) -> JSONResponse:
        """No replica serves yet: 503."""
        return answer(503, str(error))

    @app.exception_handler(PipelineError)
    async def broken(request: Request, error: PipelineError) -> JSONResponse:
        """Generation failed: 500, with the cause in the log alone."""
        return answer(500, _logged(request, error), code="generation_failed")

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> JSONResponse:
        """Errors of the framework: unknown URLs and methods, bodies that are no JSON."""
        message, code = str(error.detail), None
        if error.status_code == 404:
            message = f"no such URL: {request.method} {request.url.path}"
        elif error.status_code == 400:
            message, code = f"the body is no JSON that can be read: {message}", "invalid_json"
        return answer(error.status_code, message, code=code, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        """A body that breaks its schema: 400, naming the first fields at fault."""
        items = error.errors()
        problems = [_problem(item) for item in items[:_MAX_PROBLEMS]]
        message = "; ".join(f"{name}: {text}" if name else text for name, text in problems)
        if len(items) > _MAX_PROBLEMS:
            message += f"; and {len(items) - _MAX_PROBLEMS} more"
        code = _VALIDATION_CODES.get(items[0]["type"])
        return answer(400, message, param=problems[0][0] or None, code=code)

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> JSONResponse:
        """Any other error: 500, with the traceback in the log alone."""
        # Starlette raises the error again after this answer, so no server takes it for handled.
        return answer(500, _logged(request, error))


def _logged(request: Request, error: Exception) -> str:
    """Log an internal error; returns the message for the client, which names the log entry."""
    error_id = uuid.uuid4().hex[:12]
    path = _printable(request.url.path, _MAX_CHARS)
    logger.error("error %s: %s %s failed", error_id, request.method, path, exc_info=error)
    return f"the server failed to answer; its log has the cause as error {error_id}"


def _problem(item: Mapping[str, Any]) -> tuple[str, str]:
    """Field and message of one validation error; invalid JSON has no field."""
    if item["type"] == "json_invalid":
        return "", f"{item['msg']} at character {item['loc'][-1]}"
    name = ".".join(str(part) for part in item["loc"] if part != "body")
    return _printable(name, _MAX_CHARS), _printable(item["msg"], _MAX_CHARS)


def _printable(text: str, max_chars: int) -> str:
    """The text without lone surrogates, truncated."""
    shown = text if len(text) <= max_chars else text[: max_chars - 4] + " ..."
    return shown.encode("utf-8", "backslashreplace").decode()
