"""Middleware of every route: HEAD for every GET, and routing by the raw path of the request."""

import re
from urllib.parse import unquote_to_bytes

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["HeadMiddleware", "PathMiddleware", "routed_path"]

_ORIGIN = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)


class HeadMiddleware:
    """Runs a HEAD request as GET without the body, and adds HEAD to the header Allow.

    The scope's `requested_method` is still HEAD, for routes that need no body to answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_head = scope["method"] == "HEAD"

        async def send_without_body(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                if "allow" in headers:
                    headers["allow"] = headers["allow"].replace("GET", "GET, HEAD")
                message["headers"] = headers.raw
            elif is_head:
                message = {**message, "body": b""}
            await send(message)

        if is_head:
            scope = {**scope, "method": "GET", "requested_method": "HEAD"}
        await self._app(scope, receive, send_without_body)


class PathMiddleware:
    """Routes by the raw path of the request, because servers decode `%2F` to a slash and invalid UTF-8 to U+FFFD."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope.get("raw_path"):
            scope = {**scope, "path": routed_path(scope["raw_path"])}
        await self._app(scope, receive, send)


def routed_path(raw_path: bytes) -> str:
    """The path that is matched with the routes.

    Each segment is decoded separately. A segment with an encoded slash or invalid UTF-8 stays encoded, so that it
    matches no bank. One trailing slash is removed, and so is the origin of the absolute form (`GET http://host/path`).
    """
    path = _ORIGIN.sub(b"", raw_path, count=1) if not raw_path.startswith(b"/") else raw_path
    path = path[:-1] if len(path) > 1 and path.endswith(b"/") else path
    return "/".join(map(_segment, path.split(b"/"))) or "/"


def _segment(raw: bytes) -> str:
    decoded = unquote_to_bytes(raw)
    if b"/" not in decoded:
        try:
            return decoded.decode("utf-8")
        except UnicodeDecodeError:
            pass
    return raw.decode("ascii", "backslashreplace")
