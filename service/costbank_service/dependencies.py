"""What routes depend on: the registry of the application, and the right to ask."""

from secrets import compare_digest

from fastapi import Request
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from costbank_service.registry import Registry
from costbank_service.searches import SearchPool
from costbank_service.settings import Settings

__all__ = ["authorize", "bearer", "registry_of", "searches_of", "settings_of"]

_SEND = "send the header `Authorization: Bearer <key>`"

bearer = HTTPBearer(
    scheme_name="key", description="The service's key, in the header `Authorization: Bearer <key>`.", auto_error=False
)
"""For the OpenAPI document alone; `authorize` decides."""


def registry_of(request: Request) -> Registry:
    return request.app.state.registry


def searches_of(request: Request) -> SearchPool:
    return request.app.state.searches


def settings_of(request: Request) -> Settings:
    return request.app.state.settings


def authorize(request: Request) -> None:
    """Let a request pass that carries the key, where there is one; compared as bytes, in constant time.

    A key that is not ASCII is accepted in UTF-8, as most programs send it, and in Latin-1, as HTTP once had it.
    """
    key = settings_of(request).api_key
    if key is None:
        return
    given = [value for name, value in request.scope["headers"] if name == b"authorization"]
    if not given:
        raise _unauthorized(f"this service needs a key: {_SEND}")
    scheme, _, sent = given[0].partition(b" ")
    if len(given) > 1 or scheme.lower() != b"bearer":
        raise _unauthorized(f"the header Authorization must be one `Bearer <key>`: {_SEND}")
    matches = [compare_digest(sent.lstrip(b" "), reading) for reading in _readings(key.get_secret_value())]
    if not any(matches):
        raise _unauthorized("the key in the header Authorization is not this service's", ', error="invalid_token"')


def _readings(key: str) -> list[bytes]:
    utf8 = key.encode("utf-8", "surrogateescape")
    try:
        return [utf8, key.encode("latin-1")]
    except UnicodeEncodeError:
        return [utf8]


def _unauthorized(detail: str, more: str = "") -> HTTPException:
    return HTTPException(401, detail, {"WWW-Authenticate": f'Bearer realm="costbank"{more}'})
