"""The page at `/`, on which people look at banks in a browser. Its files are static and load nothing else."""

from hashlib import sha256
from importlib.resources import files

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

__all__ = ["router"]

_TYPES = {
    "css": "text/css; charset=utf-8", "html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}  # fmt: skip
_POLICY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def _read() -> dict[str, tuple[bytes, dict[str, str]]]:
    """The bytes and the headers of each file."""
    read = {}
    for entry in files("costbank_service").joinpath("web").iterdir():
        if entry.is_file():
            data = entry.read_bytes()
            kind = _TYPES[entry.name.rpartition(".")[2]]
            read[entry.name] = data, {**_POLICY, "ETag": f'"{sha256(data).hexdigest()}"', "Content-Type": kind}
    return read


_FILES = _read()

router = APIRouter(include_in_schema=False)


@router.get("/")
async def page(request: Request) -> Response:
    """The page itself."""
    return _file(request, "index.html")


@router.get("/web/{name}")
async def page_file(name: str, request: Request) -> Response:
    """A script, the style or the icon of the page."""
    if name not in _FILES:
        raise HTTPException(404)
    return _file(request, name)


def _file(request: Request, name: str) -> Response:
    data, headers = _FILES[name]
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers)
