"""What happens to every request before and after its route, in one layer, because each layer costs time.

The path of the request, HEAD as GET, the request's id, the key, the limits of its body, of its time and of concurrent
requests, metrics, and the access log.
"""

import asyncio
import logging
import re
from collections.abc import Iterable
from os import urandom
from time import perf_counter
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from costbank_service.keys import KeyRing
from costbank_service.logs import ACCESS_LOG
from costbank_service.metrics import Metrics
from costbank_service.paths import routed_path
from costbank_service.problems import problem
from costbank_service.settings import Settings

__all__ = ["Gateway"]

_VERSIONED = "/v1"
_PREFIX = "/v1/"
_SANE_ID = re.compile(rb"[A-Za-z0-9._~:/+=-]{1,128}")
_BODIES = frozenset({"POST", "PUT", "PATCH", "DELETE"})

access_log = logging.getLogger(ACCESS_LOG)


class Gateway:
    """The outermost layer of the application: it also sees the answers to unexpected errors."""

    def __init__(self, inner: ASGIApp, app: FastAPI, settings: Settings, keys: KeyRing, metrics: Metrics) -> None:
        self._inner = inner
        self._app = app
        self._keys = keys
        self._metrics = metrics
        self._max_requests = settings.max_requests
        self._max_body = settings.max_body_kb << 10
        self._max_body_text = f"{settings.max_body_kb:,} KB"
        self._timeout = settings.timeout_s
        self._log = settings.access_log
        self._running = 0

    @property
    def running(self) -> int:
        """The number of requests to /v1 that are running."""
        return self._running

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        began, exchange = perf_counter(), _Exchange(scope, send)
        inner = exchange.scope
        is_versioned = inner["path"].startswith(_PREFIX) or inner["path"] == _VERSIONED
        refusal = self._refusal(exchange) if is_versioned else None
        self._running += is_versioned
        try:
            if refusal is not None:
                await refusal(inner, receive, exchange.send)
            else:
                if inner["method"] in _BODIES:
                    receive = self._limited(exchange, receive)
                await self._timed(exchange, receive)
        finally:
            self._running -= is_versioned
            self._finish(exchange, perf_counter() - began)

    def _refusal(self, exchange: "_Exchange") -> Response | None:
        """The answer to a request to /v1 that must not reach its route."""
        scope, status, headers = exchange.scope, 0, {}
        code = detail = hint = ""
        if self._keys.required and (reason := self._keys.refusal(exchange.authorization)):
            status, code, detail, hint = 401, "unauthorized", reason[0], "ask the operator of the service for a key"
            headers = {"WWW-Authenticate": reason[1]}
        elif self._running >= self._max_requests:
            status, code, detail = 503, "overloaded", f"{self._max_requests:,} requests are running already"
            hint, headers = "try again later", {"Retry-After": "1"}
        elif exchange.body_size > self._max_body:
            status, code, detail = 413, "content-too-large", f"the body exceeds {self._max_body_text}"
            hint, headers = "send several smaller requests", {"Connection": "close"}
        if not status:
            return None
        self._metrics.refused(code)
        return problem(Request(scope), status, code, _TITLES[status], detail, hint, headers)

    def _limited(self, exchange: "_Exchange", receive: Receive) -> Receive:
        """`receive` that refuses a body beyond the limit, whose size was not announced, and notes its end."""
        received, exchange.body_is_late = 0, True

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_body:
                self._metrics.refused("content-too-large")
                raise HTTPException(413, f"the body exceeds {self._max_body_text}", {"Connection": "close"})
            exchange.body_is_late = bool(message.get("more_body"))
            return message

        return limited

    async def _timed(self, exchange: "_Exchange", receive: Receive) -> None:
        """Run the request. An answer that has begun may take longer than the time limit."""
        timeout = exchange.timeout = asyncio.timeout(self._timeout)
        try:
            async with timeout:
                await self._inner(exchange.scope, receive, exchange.send)
        except TimeoutError:
            if exchange.status or not timeout.expired():
                raise
            status, code = (408, "request-timeout") if exchange.body_is_late else (503, "timeout")
            detail = "the body did not arrive in time" if exchange.body_is_late else "the answer was not ready in time"
            headers = {"Connection": "close"} if exchange.body_is_late else {"Retry-After": "1"}
            self._metrics.refused(code)
            hint = f"the limit is {self._timeout:g} s; request less at a time, or try again later"
            answer = problem(Request(exchange.scope), status, code, _TITLES[status], detail, hint, headers)
            await answer(exchange.scope, receive, exchange.send)

    def _finish(self, exchange: "_Exchange", seconds: float) -> None:
        scope = exchange.scope
        route = scope.get("route")
        template = getattr(route, "path_format", None)
        status = exchange.status or 499  # the client went away first
        self._metrics.answered(scope["requested_method"], template, status, seconds)
        if self._log:
            path = scope.get("raw_path", b"").decode("ascii", "backslashreplace")
            facts: dict[str, Any] = {
                "request_id": scope["request_id"], "method": scope["requested_method"], "path": path,
                "route": template, "status": status, "ms": round(seconds * 1e3, 2),
                "client": (scope.get("client") or ("",))[0],
            }  # fmt: skip
            access_log.info("%s %s %s %.2f ms", facts["method"], path, status, facts["ms"], extra=facts)


_TITLES = {
    401: "Unauthorized", 408: "Request Timeout", 413: "Content Too Large", 503: "Service Unavailable",
}  # fmt: skip


class _Exchange:
    """A request as the routes see it, and what is known of its answer."""

    timeout: asyncio.Timeout | None = None
    body_is_late = False
    status = 0

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        self.authorization, self.body_size, request_id = _read(scope["headers"])
        self._id = request_id or urandom(8).hex().encode()
        method, raw = scope["method"], scope.get("raw_path")
        self._is_head = method == "HEAD"
        self.scope: dict[str, Any] = {
            **scope, "path": routed_path(raw) if raw else scope["path"], "requested_method": method,
            "method": "GET" if self._is_head else method, "request_id": self._id.decode("ascii"),
        }  # fmt: skip

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self._id)]
            if self.timeout and not self.timeout.expired():
                self.timeout.reschedule(None)
        elif self._is_head:
            message = {**message, "body": b""}
        await self._send(message)


def _read(headers: Iterable[tuple[bytes, bytes]]) -> tuple[list[bytes], int, bytes]:
    """The Authorization headers, the announced size of the body, and the client's request id if it is sane."""
    authorization, size, request_id = [], 0, b""
    for name, value in headers:
        if name == b"authorization":
            authorization.append(value)
        elif name == b"content-length":
            size = int(value) if value.isdigit() else 0
        elif name == b"x-request-id" and _SANE_ID.fullmatch(value):
            request_id = value
    return authorization, size, request_id
