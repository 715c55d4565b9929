"""What routes ask for: the registry of the application, and the right to ask."""

from secrets import compare_digest

from fastapi import Request
from starlette.exceptions import HTTPException

from costbank_service.registry import Registry
from costbank_service.settings import Settings

__all__ = ["authorize", "registry_of", "settings_of"]


def registry_of(request: Request) -> Registry:
    return request.app.state.registry


def settings_of(request: Request) -> Settings:
    return request.app.state.settings


def authorize(request: Request) -> None:
    """Let a request pass that carries the key, where there is one; compared in constant time."""
    key = settings_of(request).api_key
    if key is None:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not compare_digest(given.encode(), key.get_secret_value().encode()):
        raise HTTPException(401, "this service asks for a key", {"WWW-Authenticate": "Bearer"})
