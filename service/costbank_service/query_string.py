"""Strict parsing of query strings.

FastAPI is lenient: bytes that are not UTF-8 become U+FFFD, the last of several equal names wins, and unknown names are
ignored. Here such bytes are kept (as surrogates, which `Vocab.find` turns back into bytes), and everything else is an
error that says what is wrong.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal
from urllib.parse import unquote_to_bytes

from fastapi import Request

from costbank.errors import UsageError
from costbank.token_names import printable

__all__ = ["QueryParameter", "parse_query", "query_reader", "readable"]

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2}).{0,2}", re.DOTALL)
_INTEGER = re.compile(rb"-?[0-9]+")
_MAX_DIGITS = 18
_MAX_SHOWN_BYTES = 80


@dataclass(frozen=True)
class QueryParameter:
    """A query parameter: a string (with `surrogateescape` for bytes that are not UTF-8), an integer, or a list of
    integers separated by commas. A string may have to be one of `choices`."""

    name: str
    kind: Literal["string", "integer", "integers"]
    description: str
    default: int | str | None = None
    minimum: int | None = None
    choices: tuple[str, ...] = ()
    required: bool = False
    example: str | int | None = None

    def openapi(self) -> dict[str, Any]:
        """The parameter object of an OpenAPI operation."""
        schema: dict[str, Any] = {"type": "integer" if self.kind == "integer" else "string", "title": self.name}
        schema |= {"minLength": 1} if self.kind == "string" and not self.choices else {}
        schema |= {"pattern": "^[0-9]{1,18}(,[0-9]{1,18})*$"} if self.kind == "integers" else {}
        schema |= {"enum": list(self.choices)} if self.choices else {}
        schema |= {"minimum": self.minimum} if self.minimum is not None else {}
        schema |= {"maximum": 10**_MAX_DIGITS - 1} if self.kind == "integer" else {}
        schema |= {"default": self.default} if self.default is not None else {}
        documented = {
            "name": self.name, "in": "query", "required": self.required, "schema": schema,
            "description": self.description,
        }  # fmt: skip
        return documented if self.example is None else {**documented, "example": self.example}

    def read(self, value: bytes) -> str | int | list[int]:
        if not value:
            raise UsageError(f"{self.name} is empty", f"give {self.name} a value, or omit it")
        if self.kind == "integers":
            return [self._integer(part) for part in value.split(b",")]
        if self.kind == "integer":
            return self._integer(value)
        text = value.decode("utf-8", "surrogateescape")
        if self.choices and text not in self.choices:
            raise UsageError(f"{self.name} is '{readable(value)}'", f"use {' or '.join(self.choices)}")
        return text

    def _integer(self, value: bytes) -> int:
        if not _INTEGER.fullmatch(value):
            raise UsageError(f"{self.name} is '{readable(value)}', not a whole number", f"for example: {self.name}=10")
        if len(value.lstrip(b"-0")) > _MAX_DIGITS:
            raise UsageError(f"{self.name} has {len(value):,} digits", "give a smaller number")
        return int(value)


def query_reader(parameters: Sequence[QueryParameter]) -> Callable[[Request], dict[str, Any]]:
    """A dependency that returns a route's parameters by name; an absent one has its default, or None."""

    def read(request: Request) -> dict[str, Any]:
        return parse_query(request.scope.get("query_string", b""), parameters)

    return read


def parse_query(query: bytes, parameters: Sequence[QueryParameter]) -> dict[str, Any]:
    """The parameters of a query string (`application/x-www-form-urlencoded`: `+` is a space).

    Raises:
        UsageError: a name is unknown or repeated, a value is invalid, or a `%` is not followed by two hex digits.
    """
    known = {parameter.name: parameter for parameter in parameters}
    values: dict[str, Any] = {name: parameter.default for name, parameter in known.items()}
    seen: set[str] = set()
    for pair in query.split(b"&") if query else ():
        if not pair:
            continue
        raw_name, _, raw_value = pair.partition(b"=")
        name = raw_name.decode("latin-1") if raw_name.isalnum() else readable(_decoded(raw_name))
        if name not in known:
            raise UsageError(f"unknown query parameter '{name}'", _suggestion(name, list(known)))
        if name in seen:
            raise UsageError(f"{name} is repeated", f"give {name} once")
        seen.add(name)
        values[name] = known[name].read(_decoded(raw_value))
    for parameter in parameters:
        if parameter.required and parameter.name not in seen:
            raise UsageError(f"{parameter.name} is missing", f"for example: {parameter.name}={parameter.example}")
    return values


def readable(data: bytes) -> str:
    """Bytes for an error message: printable, and truncated."""
    return printable(data[:_MAX_SHOWN_BYTES]) + ("…" if len(data) > _MAX_SHOWN_BYTES else "")


def _decoded(data: bytes) -> bytes:
    if data.isalnum():
        return data
    if bad := _BAD_ESCAPE.search(data):
        raise UsageError(f"'{readable(bad.group())}' is not a percent-encoded byte", "encode a percent sign as %25")
    return unquote_to_bytes(data.replace(b"+", b" "))


def _suggestion(name: str, known: list[str]) -> str:
    if close := get_close_matches(name.lower(), known, 1):
        return f"did you mean {close[0]}?"
    return f"the parameters are: {', '.join(known)}" if known else "this route takes no query parameters"
