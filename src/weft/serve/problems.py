"""Errors as RFC 9457 problem documents, with weft's own code, the user's line and details beside the standard members.

{"type": "urn:weft:error:shape", "title": "ShapeError", "status": 422, "detail": "…",
 "code": "shape", "where": {"file": "a.py", "line": 7, "text": "…"}, "details": {…}}
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from weft.errors import (
    ExecutionError,
    FormatError,
    JobCancelledError,
    LimitError,
    ModelError,
    NotFoundError,
    ProgramError,
    RefusedError,
    ServiceError,
    TokenError,
    WeftError,
)

MEDIA_TYPE = "application/problem+json"
STATUS: dict[type[WeftError], int] = {
    ProgramError: 422,
    TokenError: 422,
    FormatError: 400,
    LimitError: 413,
    NotFoundError: 404,
    JobCancelledError: 409,
    RefusedError: 409,
    ModelError: 422,
    ServiceError: 503,
    ExecutionError: 500,
    WeftError: 500,
}
"""The status of each error, by the nearest class above it."""


class Problem(BaseModel):
    """An RFC 9457 problem document."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    where: dict[str, Any] | None = None
    details: dict[str, Any] = {}


def status_of(error: WeftError) -> int:
    own = error.details.get("status") if isinstance(error, ServiceError) else None
    return own if isinstance(own, int) else next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def answer(error: WeftError, status: int | None = None) -> JSONResponse:
    """The response that says what went wrong."""
    data, status = error.to_data(), status or status_of(error)
    problem = Problem(
        type=f"urn:weft:error:{error.code}",
        title=type(error).__name__,
        status=status,
        detail=data.pop("message"),
        **data,
    )
    headers = {"Retry-After": "1"} if status == 503 else None
    return JSONResponse(problem.model_dump(), status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Make every error of the application a problem document, FastAPI's own included."""

    async def weft_error(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, WeftError)
        return answer(error)

    async def http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        kind = NotFoundError if error.status_code == 404 else RefusedError
        phrase = HTTPStatus(error.status_code).phrase
        return answer(kind(f"{request.method} {request.url.path}: {error.detail or phrase}"), error.status_code)

    async def bad_request(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        return answer(FormatError(f"{request.method} {request.url.path}: {wrong}"), 422)

    app.add_exception_handler(WeftError, weft_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, bad_request)
