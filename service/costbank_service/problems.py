"""Errors as RFC 9457 problem details: `application/problem+json` with a stable `code` and a hint.

The library's messages may contain paths of this machine, so only errors about the request itself are sent unchanged.
All others are logged, and the client gets a general message without paths.
"""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from costbank.errors import (
    BankNotFoundError,
    CorruptBankError,
    CostbankError,
    MissingExtraError,
    TokenNotFoundError,
    UsageError,
)
from costbank.tensorread import ChangedFileError

__all__ = ["PROBLEM_JSON", "Problem", "ServiceError", "StoreUnavailableError", "add_problem_handlers", "problem",
           "problem_bytes", "problem_responses"]  # fmt: skip

PROBLEM_JSON = "application/problem+json"
_MAX_INSTANCE_BYTES = 256

logger = logging.getLogger("costbank.service")


class Problem(BaseModel):
    """An error, for programs (`code`) and for people (`detail`, `hint`)."""

    type: str = Field(
        default="about:blank", description="URL of a page about this `code`, if the service has a base for them"
    )
    title: str
    status: int
    detail: str
    code: str = Field(description="stable name of the kind of error")
    hint: str = Field(description="what to do about it")
    instance: str = Field(description="path of the request; empty if the request could not be parsed")
    request_id: str = Field(description="id of the request, also in the header X-Request-Id and in the log")


class ServiceError(CostbankError):
    """An error of the service itself; its message contains no paths of this machine."""


class StoreUnavailableError(ServiceError):
    code = "store-unavailable"
    title = "The store cannot be read"
    http_status = 503


_SENT_AS_IS = (ServiceError, UsageError, BankNotFoundError, TokenNotFoundError, MissingExtraError)
_REPLACED = ("a file of this bank is being replaced", "try again when it is complete")
_DAMAGED = ("a file of this bank is damaged, incomplete or being replaced",
            "the service's log names the file; `costbank verify` checks every file")  # fmt: skip
_UNREADABLE = ("the service cannot read its store", "the service's log says why")
_GENERAL = ((ChangedFileError, _REPLACED), (CorruptBankError, _DAMAGED))
_DESCRIPTIONS = {
    400: "Malformed request", 401: "The key is missing or wrong", 404: "No such bank or token",
    406: "The Accept header has no type that this route offers", 413: "The body is too large",
    415: "The body is not JSON", 422: "The body has other keys or values than the schema", 500: "Damaged bank",
    501: "A library that this route needs is not installed",
    503: "Busy, or the store cannot be read; `Retry-After` is the number of seconds to wait",
}  # fmt: skip

_TITLES = {413: "Content Too Large", 416: "Range Not Satisfiable", 422: "Invalid Body"}
_HINTS = {
    406: "send Accept: application/json, or another type that the route offers",
    413: "send several smaller requests",
    415: "send the body with Content-Type: application/json",
    422: "/openapi.json has the schema of the body, and /docs shows it",
}


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of an OpenAPI operation: the given statuses, and `default` for all others."""
    content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    specific = {status: {"description": _DESCRIPTIONS[status], "content": content} for status in statuses}
    return {**specific, "default": {"description": "Any other error", "content": content}}


def problem(
    request: Request, status: int, code: str, title: str, detail: str, hint: str = "", headers: Mapping[str, str] = {}
) -> Response:
    raw = request.scope.get("raw_path") or request.scope["path"].encode("utf-8", "backslashreplace")
    instance = raw[:_MAX_INSTANCE_BYTES].decode("ascii", "backslashreplace")
    base = request.app.state.settings.problem_base if "app" in request.scope else ""
    kind = f"{base.rstrip('/')}/{code}.html" if base else "about:blank"
    body = Problem(
        type=kind, title=title, status=status, detail=detail, code=code, hint=hint, instance=instance,
        request_id=request.scope.get("request_id", ""),
    )  # fmt: skip
    return Response(problem_bytes(body), status, dict(headers), PROBLEM_JSON)


def problem_bytes(body: Problem) -> bytes:
    """A problem as JSON, with invalid Unicode escaped."""
    texts = {key: _unicode(value) if isinstance(value, str) else value for key, value in body.model_dump().items()}
    return orjson.dumps(texts)


def add_problem_handlers(app: FastAPI) -> None:
    """Make `app` send every error as a problem."""
    app.add_exception_handler(CostbankError, _costbank_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(OSError, _os_error)
    app.add_exception_handler(Exception, _bug)


async def _costbank_error(request: Request, error: Any) -> Response:
    detail, hint = error.message, error.hint
    if not isinstance(error, _SENT_AS_IS):
        logger.error("%s: %s (%s)", request.url.path, detail, hint, extra=_id_of(request))
        kind = type(error)
        detail, hint = next((general for base, general in _GENERAL if issubclass(kind, base)), _UNREADABLE)
    headers = {"Retry-After": "1"} if error.http_status == 503 else {}
    return problem(request, error.http_status, error.code, error.title, detail, hint, headers)


async def _os_error(request: Request, error: Any) -> Response:
    logger.error("%s: the store cannot be read", request.url.path, exc_info=error, extra=_id_of(request))
    return await _costbank_error(request, StoreUnavailableError(*_UNREADABLE))


async def _invalid_request(request: Request, error: Any) -> Response:
    details = [f"{'.'.join(map(str, entry['loc'][1:]))}: {entry['msg']}" for entry in error.errors()]
    hint = "/openapi.json describes the parameters"
    return problem(request, 400, "usage", "Malformed request", "; ".join(details), hint)


async def _http_error(request: Request, error: Any) -> Response:
    status = HTTPStatus(error.status_code)
    detail, hint, headers = str(error.detail), "/openapi.json lists the routes", dict(error.headers or {})
    if status == 404:
        detail = "no such route"
    elif status == 405:
        allowed = _allowed(request)
        detail, hint = (
            f"{request.scope['requested_method']} is not allowed on this route",
            f"use {' or '.join(allowed)}",
        )
        headers["Allow"] = ", ".join(allowed)
    elif status in _HINTS:
        hint = _HINTS[status]
    title = _TITLES.get(status, status.phrase)
    return problem(request, status, title.lower().replace(" ", "-"), title, detail, hint, headers)


def _allowed(request: Request) -> list[str]:
    """The methods of the route whose path the request has."""
    document = request.app.openapi()
    operations = document["paths"].get(getattr(request.scope.get("route"), "path_format", ""), {"get": {}})
    methods = [name.upper() for name in operations]
    return ["GET", "HEAD", *(name for name in methods if name not in ("GET", "HEAD"))] if "GET" in methods else methods


def _id_of(request: Request) -> dict[str, str]:
    return {"request_id": request.scope.get("request_id", "")}


async def _bug(request: Request, error: Any) -> Response:
    logger.error("unexpected error for %s", request.url.path, exc_info=error, extra=_id_of(request))
    hint = "report it with the entry in the service's log"
    return problem(request, 500, "internal", "Internal error", "an unexpected error occurred and was logged", hint)


def _unicode(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
