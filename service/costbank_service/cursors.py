"""Cursors of pages: opaque texts that continue one query on one bank."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from hashlib import sha256

from costbank.errors import UsageError

__all__ = ["cursor_of", "position_of"]

_POSITION_BYTES = 8
_DIGEST_BYTES = 12


def cursor_of(position: int, *query: str | bytes) -> str:
    """A cursor for the results after a position."""
    return urlsafe_b64encode(position.to_bytes(_POSITION_BYTES, "big") + _digest(query)).decode("ascii")


def position_of(cursor: str, *query: str | bytes) -> int:
    """The position in a cursor of this query.

    Raises:
        UsageError: it is not a cursor, or one of another query or another bank.
    """
    try:
        data = urlsafe_b64decode(cursor.encode("ascii", "replace"))
    except (Error, ValueError):
        data = b""
    position, digest = data[:_POSITION_BYTES], data[_POSITION_BYTES:]
    if digest != _digest(query) or cursor != cursor_of(int.from_bytes(position, "big"), *query):
        raise UsageError(
            "the cursor is not one of this query on this bank", "take `next` of the page before, with the same query"
        )
    return int.from_bytes(position, "big")


def _digest(query: tuple[str | bytes, ...]) -> bytes:
    digest = sha256(b"costbank cursor 1")
    for part in query:
        data = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.digest()[:_DIGEST_BYTES]
