"""Errors as RFC 9457 problems: `application/problem+json` with a stable `code` and a hint."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from costbank.errors import CostbankError

__all__ = ["Problem", "add_problem_handlers", "problem"]

logger = logging.getLogger("costbank.service")


class Problem(BaseModel):
    """What went wrong, for programs (`code`) and for people (`detail`, `hint`)."""

    type: str = Field(description="about:blank: the code says it all")
    title: str
    status: int
    detail: str
    code: str = Field(description="stable name of the kind of error")
    hint: str = Field(description="what to do about it")
    instance: str = Field(description="the path that was asked for")


def problem(
    request: Request, status: int, code: str, title: str, detail: str, hint: str = "", headers: Mapping[str, str] = {}
) -> Response:
    body = Problem(
        type="about:blank", title=title, status=status, detail=detail, code=code, hint=hint, instance=request.url.path
    )
    return Response(orjson.dumps(body.model_dump()), status, dict(headers), "application/problem+json")


def add_problem_handlers(app: FastAPI) -> None:
    """Make every error answer of `app` a problem."""
    app.add_exception_handler(CostbankError, _costbank_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _bug)


async def _costbank_error(request: Request, error: Any) -> Response:
    return problem(request, error.http_status, error.code, error.title, str(error), error.hint)


async def _invalid_request(request: Request, error: Any) -> Response:
    wrong = [f"{'.'.join(map(str, entry['loc'][1:]))}: {entry['msg']}" for entry in error.errors()]
    return problem(request, 400, "usage", "Malformed request", "; ".join(wrong), "see /openapi.json")


async def _http_error(request: Request, error: Any) -> Response:
    phrase = HTTPStatus(error.status_code).phrase
    code = phrase.lower().replace(" ", "-")
    return problem(
        request, error.status_code, code, phrase, str(error.detail), "see /openapi.json", error.headers or {}
    )


async def _bug(request: Request, error: Any) -> Response:
    logger.error("unexpected error for %s", request.url.path, exc_info=error)
    return problem(request, 500, "internal", "Internal error", "an unexpected error; it was logged", "report it")
