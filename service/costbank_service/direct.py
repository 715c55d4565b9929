"""Routes that run without FastAPI's dependencies, but are in its OpenAPI document."""

from collections.abc import Sequence
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from costbank_service.query_string import QueryParameter

__all__ = ["REFERENCE", "DirectRoute", "documented"]

REFERENCE: dict[str, Any] = {
    "name": "ref", "in": "path", "required": True, "schema": {"type": "string", "title": "Ref"}, "example": "demo",
    "description": "the bank: `name`, or `name@idprefix`",
}  # fmt: skip
"""The parameter that every route of a bank has."""


class DirectRoute(APIRoute):
    """A route whose function takes the request and returns the response."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.methods and scope["method"] not in self.methods:
            raise HTTPException(405, headers={"Allow": ", ".join(self.methods)})
        response = await self.endpoint(Request(scope, receive))
        await response(scope, receive, send)


def documented(parameters: Sequence[QueryParameter], **more: Any) -> dict[str, Any]:
    """The `openapi_extra` of a route of a bank with these query parameters."""
    return {"parameters": [REFERENCE, *(parameter.openapi() for parameter in parameters)], **more}
