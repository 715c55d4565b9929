"""What each code of an error means: those of the library, of the service, and of HTTP itself."""

from collections.abc import Iterator

import costbank_service.app  # noqa: F401 -- it imports every module that defines an error
from costbank_service.problems import ServiceError

from costbank import errors
from costbank.errors import CostbankError

__all__ = ["HTTP_CODES", "SERVICE_CODES", "sections", "service_errors"]

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

SERVICE_CODES = {
    "file-not-listed": ("The bank has no such file.", "The bank's manifest lists its files."),
    "overloaded": ("Too many requests or searches are running or waiting.",
                   "Try again after `Retry-After` seconds; a k within the bank's table needs no search."),
    "store-unavailable": ("The service cannot read its store.", "The service's log says why."),
    "bank-too-large": ("The bank's table alone exceeds the service's memory limit.",
                       "Start the service with a larger `COSTBANK_MAX_MEMORY_MB`."),
    "no-map": ("The bank was built without a map.", "Use the routes for neighbors or vectors."),
}  # fmt: skip
"""Codes of errors that only the service raises: meaning, and what to do."""


def service_errors() -> list[type[ServiceError]]:
    """The classes of errors that only the service raises."""
    return sorted(ServiceError.__subclasses__(), key=lambda kind: kind.code)


def sections(meanings: dict[str, str]) -> str:
    """A section for every code, in their order; its anchor is the code.

    Args:
        meanings: the meaning of each class of the library, by its name.
    """
    return "\n".join(text for _, text in sorted({**dict(_of_library(meanings)), **dict(_of_service())}.items()))


def _of_library(meanings: dict[str, str]) -> Iterator[tuple[str, str]]:
    for name in errors.__all__:
        kind = getattr(errors, name)
        if isinstance(kind, type) and issubclass(kind, CostbankError) and kind.code not in HTTP_CODES:
            yield kind.code, _section(kind.code, kind.http_status, _sentence(meanings.get(name, kind.title)),
                                      "The hint of the error says what to do.")  # fmt: skip


def _of_service() -> Iterator[tuple[str, str]]:
    for kind in service_errors():
        meaning, remedy = SERVICE_CODES[kind.code]
        yield kind.code, _section(kind.code, kind.http_status, meaning, remedy)
    for code, (status, meaning, remedy) in HTTP_CODES.items():
        yield code, _section(code, status, meaning, remedy)


def _section(code: str, status: int, meaning: str, remedy: str) -> str:
    return f"### {code}\n\nHTTP {status}. {meaning} {remedy}\n"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
