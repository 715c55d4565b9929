"""Requests that the HTTP parser refuses, answered as problems too.

uvicorn answers these itself, in plain text, before any application sees them. The parser is the one that uvicorn
chooses: httptools where it is installed, else h11.
"""

import asyncio
import re
import sys

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from costbank_service.problems import Problem, problem_bytes

__all__ = ["ProblemProtocol"]

_ENCODING = (
    "percent-encode spaces and every character that is not ASCII; "
    "curl does it with: curl -G --data-urlencode 'token=…' URL"
)
_BYTES = re.compile(r"""(?:bytearray\(b|b)(['"])(.*)\1\)?$""", re.DOTALL)
"""How Python shows bytes, at the end of what the parser says."""

_REASONS = {400: "Bad Request", 431: "Request Header Fields Too Large"}


class ProblemProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type] -- a class that uvicorn picks as it is imported
    """uvicorn's HTTP protocol, whose answer to a malformed request is `application/problem+json`."""

    transport: asyncio.Transport

    def send_400_response(self, msg: str) -> None:
        # Called inside the `except` of the parser's error, which says what is wrong; `msg` is always the same.
        error = sys.exception()
        status = getattr(error, "error_status_hint", 400)
        status = status if status in _REASONS else 400
        cycle = getattr(self, "cycle", None)
        if cycle is None or not cycle.response_started or cycle.response_complete:
            said = _BYTES.sub(r"\2", str(error)) if error else ""
            detail = f"this is not a valid HTTP request: {said}" if said else msg
            answer = Problem(
                title=_REASONS[status], status=status, detail=detail, code="malformed-request",
                hint=_hint(status, said), instance="",
            )  # fmt: skip
            body = problem_bytes(answer)
            head = (
                f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: application/problem+json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode("ascii") + body)
        self.transport.close()


def _hint(status: int, said: str) -> str:
    if status == 431:
        return "send fewer or shorter headers"
    if "content-length" in said.lower():
        return "give Content-Length once, as a whole number"
    if "missing" in said.lower():
        return "send a Host header, as HTTP/1.1 demands"
    if "header" in said.lower() or "encoding" in said.lower():
        return "write each header as its name, a colon and its value, without control characters"
    return _ENCODING
