"""Dependencies of the routes: the application's state, and authorization."""

from secrets import compare_digest

from fastapi import Request
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from costbank_service.bank_cache import BankCache
from costbank_service.search_pool import SearchPool
from costbank_service.settings import Settings

__all__ = ["authorize", "banks_of", "bearer", "searches_of", "settings_of"]

_SEND = "send the header `Authorization: Bearer <key>`"

bearer = HTTPBearer(
    scheme_name="key", description="The service's key, in the header `Authorization: Bearer <key>`.", auto_error=False
)
"""Only for the OpenAPI document; `authorize` makes the decision."""


def banks_of(request: Request) -> BankCache:
    return request.app.state.banks


def searches_of(request: Request) -> SearchPool:
    return request.app.state.searches


def settings_of(request: Request) -> Settings:
    return request.app.state.settings


def authorize(request: Request) -> None:
    """If the service has a key, refuse requests without it. Keys are compared as bytes, in constant time.

    A non-ASCII key is accepted in UTF-8, as most clients send it, and in Latin-1, as older HTTP specifies.

    Raises:
        HTTPException: 401.
    """
    key = settings_of(request).api_key
    if key is None:
        return
    values = [value for name, value in request.scope["headers"] if name == b"authorization"]
    if not values:
        raise _unauthorized(f"this service requires a key: {_SEND}")
    scheme, _, sent = values[0].partition(b" ")
    if len(values) > 1 or scheme.lower() != b"bearer":
        raise _unauthorized(f"the Authorization header must be a single `Bearer <key>`: {_SEND}")
    matches = [compare_digest(sent.lstrip(b" "), encoded) for encoded in _encodings(key.get_secret_value())]
    if not any(matches):
        raise _unauthorized("the key in the Authorization header is wrong", ', error="invalid_token"')


def _encodings(key: str) -> list[bytes]:
    utf8 = key.encode("utf-8", "surrogateescape")
    try:
        return [utf8, key.encode("latin-1")]
    except UnicodeEncodeError:
        return [utf8]


def _unauthorized(detail: str, parameters: str = "") -> HTTPException:
    return HTTPException(401, detail, {"WWW-Authenticate": f'Bearer realm="costbank"{parameters}'})
