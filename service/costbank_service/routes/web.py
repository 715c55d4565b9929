"""The page at `/`, on which people look at banks in a browser. Its files are static and load nothing else."""

from hashlib import sha256
from importlib.resources import files
from mimetypes import guess_type

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

__all__ = ["router"]

_TYPES = {".js": "text/javascript", ".svg": "image/svg+xml"}
_POLICY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
_NAMES = frozenset(entry.name for entry in files("costbank_service").joinpath("web").iterdir() if entry.is_file())

router = APIRouter(include_in_schema=False)


@router.get("/")
async def page(request: Request) -> Response:
    """The page itself."""
    return _file(request, "index.html")


@router.get("/web/{name}")
async def page_file(name: str, request: Request) -> Response:
    """A script, the style or the icon of the page."""
    if name not in _NAMES:
        raise HTTPException(404)
    return _file(request, name)


def _file(request: Request, name: str) -> Response:
    data = files("costbank_service").joinpath("web", name).read_bytes()
    headers = {**_POLICY, "ETag": f'"{sha256(data).hexdigest()}"'}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    kind = _TYPES.get(f".{name.rpartition('.')[2]}") or guess_type(name)[0] or "application/octet-stream"
    return Response(data, media_type=kind, headers=headers)
