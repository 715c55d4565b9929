"""Problem details for requests that the HTTP parser rejects.

uvicorn itself answers these, in plain text, before they reach the application. It parses with httptools if that is
installed, else with h11.
"""

import asyncio
import re
import sys

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from costbank_service.problems import Problem, problem_bytes

__all__ = ["ProblemProtocol"]

_ENCODING = "percent-encode spaces and all non-ASCII characters; with curl: curl -G --data-urlencode 'token=…' URL"
_BYTES = re.compile(r"""(?:bytearray\(b|b)(['"])(.*)\1\)?$""", re.DOTALL)
"""Bytes as Python prints them, at the end of the parser's message."""

_REASONS = {400: "Bad Request", 431: "Request Header Fields Too Large"}


class ProblemProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type] -- uvicorn chooses the class when it is imported
    """uvicorn's HTTP protocol, with `application/problem+json` as the answer to a malformed request."""

    transport: asyncio.Transport

    def send_400_response(self, msg: str) -> None:
        # uvicorn calls this while it handles the parser's error, which has the reason; `msg` is always the same.
        error = sys.exception()
        status = getattr(error, "error_status_hint", 400)
        status = status if status in _REASONS else 400
        cycle = getattr(self, "cycle", None)
        if cycle is None or not cycle.response_started or cycle.response_complete:
            reason = _BYTES.sub(r"\2", str(error)) if error else ""
            detail = f"this is not a valid HTTP request: {reason}" if reason else msg
            answer = Problem(
                title=_REASONS[status], status=status, detail=detail, code="malformed-request",
                hint=_hint(status, reason), instance="",
                request_id="",
            )  # fmt: skip
            body = problem_bytes(answer)
            head = (
                f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: application/problem+json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode("ascii") + body)
        self.transport.close()


def _hint(status: int, reason: str) -> str:
    if status == 431:
        return "send fewer or shorter headers"
    if "content-length" in reason.lower():
        return "send Content-Length once, as a whole number"
    if "missing" in reason.lower():
        return "send a Host header, which HTTP/1.1 requires"
    if "header" in reason.lower() or "encoding" in reason.lower():
        return "send each header as a name, a colon and a value, without control characters"
    return _ENCODING
