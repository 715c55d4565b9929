"""What each code of an error means, a page for each: those of the library, of the service, and of HTTP itself."""

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from itertools import takewhile

import costbank_service.app  # noqa: F401 -- it imports every module that defines an error
from costbank_service.problems import ServiceError

from costbank import errors
from costbank.errors import CostbankError

__all__ = ["HTTP_CODES", "SERVICE_CODES", "Code", "codes", "page", "service_errors", "tree"]

HTTP_CODES = {
    "malformed-request": (400, "The bytes are not a valid HTTP request.",
                          "Percent-encode spaces and non-ASCII letters in the URL, and send a Host header."),
    "unauthorized": (401, "The service requires a key, and the request has none or a wrong one.",
                     "Send `Authorization: Bearer <key>` once."),
    "not-found": (404, "No route has this path.", "`/docs` lists the routes."),
    "method-not-allowed": (405, "The route does not have this method.", "The header `Allow` lists its methods."),
    "not-acceptable": (406, "The route has no type that the header Accept permits.",
                       "Send `Accept: application/json` or `application/x-npy`."),
    "request-timeout": (408, "The body of the request did not arrive in time.", "Send it faster, or less at a time."),
    "content-too-large": (413, "The body exceeds `COSTBANK_MAX_BODY_KB`.", "Send several smaller requests."),
    "unsupported-media-type": (415, "The body is not declared as JSON.", "Send `Content-Type: application/json`."),
    "range-not-satisfiable": (416, "The file does not have the bytes that the header Range asks for.",
                              "The header `Content-Range` has its size."),
    "invalid-body": (422, "The body is JSON, but its keys or values do not fit the schema.",
                     "The detail names them; `/docs` has the schema."),
    "internal": (500, "A bug in the service.", "Report it with the log entry that has the id of the request."),
    "timeout": (503, "The answer was not ready within `COSTBANK_TIMEOUT_S`.",
                "Ask for less at a time, or try again after `Retry-After` seconds."),
}  # fmt: skip
"""Codes without a class: HTTP status, meaning, and what to do."""

_TITLES = {"internal": "Internal error", "timeout": HTTPStatus(503).phrase, "malformed-request": "Malformed request"}

SERVICE_CODES = {
    "file-not-listed": ("The bank has no such file.", "The bank's manifest lists its files."),
    "overloaded": ("Too many requests are running or waiting for a search thread.",
                   "Try again after `Retry-After` seconds; neighbors within the bank's table need no search thread."),
    "store-unavailable": ("The service cannot read its store.", "The service's log says why."),
    "bank-too-large": ("The bank's table alone exceeds the service's memory limit.",
                       "Start the service with a larger `COSTBANK_MAX_MEMORY_MB`."),
    "no-map": ("The bank has no two-dimensional map.", "`costbank layout BANK` adds one."),
}  # fmt: skip
"""Codes of errors that only the service raises: meaning, and what to do."""


def service_errors() -> list[type[ServiceError]]:
    """The classes of errors that only the service raises."""
    return sorted(ServiceError.__subclasses__(), key=lambda kind: kind.code)


@dataclass(frozen=True)
class Code:
    """A code of errors: HTTP's status, the title of its problems, what it means, and what to do."""

    code: str
    status: int
    title: str
    meaning: str
    remedy: str


@cache
def codes() -> tuple[Code, ...]:
    """Every code that the service can send, in alphabetical order."""
    found = {code.code: code for code in (*_of_library(), *_of_service())}
    return tuple(found[code] for code in sorted(found))


def page(code: Code) -> str:
    """The page of one code, with a problem as an example."""
    example = {
        "type": f"https://docs.example/reference/errors/{code.code}.html", "title": code.title, "status": code.status,
        "detail": "what is wrong with this request", "code": code.code, "hint": "what to do about it",
        "instance": "/v1/banks/my-bank", "request_id": "4f0c1b2a9d8e7f60",
    }  # fmt: skip
    return f"""# {code.code}

HTTP {code.status} {HTTPStatus(code.status).phrase}. {code.meaning} {code.remedy}

```json
{json.dumps(example, indent=2)}
```

[All errors](../errors.md)
"""


def tree() -> str:
    """The tree in the docstring of `costbank.errors`: its first block of indented lines."""
    lines = inspect.cleandoc(errors.__doc__ or "").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("    "))
    return inspect.cleandoc("\n".join(takewhile(str.strip, lines[start:])))


def _meanings() -> dict[str, str]:
    """What each class means, from the tree: its name, perhaps an exit status, and the meaning."""
    lines = (re.fullmatch(r"[│├└─ ]*(\w+Error) +(?:exit \d+ +)?(\S.*)", line) for line in tree().splitlines())
    return {line[1]: line[2] for line in lines if line}


def _of_library() -> Iterator[Code]:
    meanings = _meanings()
    for name in errors.__all__:
        kind = getattr(errors, name)
        if isinstance(kind, type) and issubclass(kind, CostbankError) and kind.code not in HTTP_CODES:
            meaning = _sentence(meanings.get(name, kind.title))
            yield Code(kind.code, kind.http_status, kind.title, meaning, "The hint of the error says what to do.")


def _of_service() -> Iterator[Code]:
    for kind in service_errors():
        yield Code(kind.code, kind.http_status, kind.title, *SERVICE_CODES[kind.code])
    for code, (status, meaning, remedy) in HTTP_CODES.items():
        yield Code(code, status, _TITLES.get(code, code.replace("-", " ").title()), meaning, remedy)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
