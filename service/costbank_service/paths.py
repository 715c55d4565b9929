"""The path of a request that is matched with the routes."""

import re
from urllib.parse import unquote_to_bytes

__all__ = ["routed_path"]

_ORIGIN = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
_PLAIN = re.compile(rb"(?:/[A-Za-z0-9._~@:+-]+)+")


def routed_path(raw_path: bytes) -> str:
    """The path that is matched with the routes, because servers decode `%2F` to a slash and invalid UTF-8 to U+FFFD.

    Each segment is decoded separately. A segment with an encoded slash or invalid UTF-8 stays encoded, so that it
    matches no bank. One trailing slash is removed, and so is the origin of the absolute form (`GET http://host/path`).
    """
    if _PLAIN.fullmatch(raw_path):
        return raw_path.decode("ascii")
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
