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

from costbank.errors import BankNotFoundError, CorruptBankError, CostbankError, TokenNotFoundError, UsageError
from costbank.tensorread import ChangedFileError

__all__ = ["PROBLEM_JSON", "Problem", "ServiceError", "StoreUnavailableError", "add_problem_handlers", "problem",
           "problem_bytes", "problem_responses"]  # fmt: skip

PROBLEM_JSON = "application/problem+json"
_MAX_INSTANCE_BYTES = 256

logger = logging.getLogger("costbank.service")


class Problem(BaseModel):
    """An error, for programs (`code`) and for people (`detail`, `hint`)."""

    type: str = Field(default="about:blank", description="always about:blank; `code` names the kind of error")
    title: str
    status: int
    detail: str
    code: str = Field(description="stable name of the kind of error")
    hint: str = Field(description="what to do about it")
    instance: str = Field(description="path of the request; empty if the request could not be parsed")


class ServiceError(CostbankError):
    """An error of the service itself; its message contains no paths of this machine."""


class StoreUnavailableError(ServiceError):
    code = "store-unavailable"
    title = "The store cannot be read"
    http_status = 503


_SENT_AS_IS = (ServiceError, UsageError, BankNotFoundError, TokenNotFoundError)
_REPLACED = ("a file of this bank is being replaced", "try again when it is complete")
_DAMAGED = ("a file of this bank is damaged, incomplete or being replaced",
            "the service's log names the file; `costbank verify` checks every file")  # fmt: skip
_UNREADABLE = ("the service cannot read its store", "the service's log says why")
_GENERAL = ((ChangedFileError, _REPLACED), (CorruptBankError, _DAMAGED))
_DESCRIPTIONS = {
    400: "Malformed request", 401: "The key is missing or wrong", 404: "No such bank or token", 500: "Damaged bank",
    503: "Busy, or the store cannot be read; `Retry-After` is the number of seconds to wait",
}  # fmt: skip


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
    body = Problem(title=title, status=status, detail=detail, code=code, hint=hint, instance=instance)
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
        logger.error("%s: %s (%s)", request.url.path, detail, hint)
        kind = type(error)
        detail, hint = next((general for base, general in _GENERAL if issubclass(kind, base)), _UNREADABLE)
    headers = {"Retry-After": "1"} if error.http_status == 503 else {}
    return problem(request, error.http_status, error.code, error.title, detail, hint, headers)


async def _os_error(request: Request, error: Any) -> Response:
    logger.error("%s: the store cannot be read", request.url.path, exc_info=error)
    return await _costbank_error(request, StoreUnavailableError(*_UNREADABLE))


async def _invalid_request(request: Request, error: Any) -> Response:
    details = [f"{'.'.join(map(str, entry['loc'][1:]))}: {entry['msg']}" for entry in error.errors()]
    hint = "/openapi.json describes the parameters"
    return problem(request, 400, "usage", "Malformed request", "; ".join(details), hint)


async def _http_error(request: Request, error: Any) -> Response:
    status = HTTPStatus(error.status_code)
    detail, hint = str(error.detail), "/openapi.json lists the routes"
    if status == 404:
        detail = "no such route"
    elif status == 405:
        detail, hint = f"{request.method} is not allowed on this route", "the service is read-only: use GET or HEAD"
    code = status.phrase.lower().replace(" ", "-")
    return problem(request, status, code, status.phrase, detail, hint, error.headers or {})


async def _bug(request: Request, error: Any) -> Response:
    logger.error("unexpected error for %s", request.url.path, exc_info=error)
    hint = "report it with the entry in the service's log"
    return problem(request, 500, "internal", "Internal error", "an unexpected error occurred and was logged", hint)


def _unicode(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
