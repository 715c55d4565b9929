"""The keys that /v1 accepts: one from a setting, others from a file that is read again when it changes."""

import logging
from collections.abc import Iterable
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path

from costbank.errors import UsageError
from costbank_service.settings import Settings, problem_with_key

__all__ = ["KeyRing", "read_keys"]

_SEND = "send the header `Authorization: Bearer <key>`"

logger = logging.getLogger("costbank.service")


class KeyRing:
    """The keys as digests, so that comparisons take the same time for keys of any length.

    Raises:
        UsageError: the file of keys cannot be read, has no key, or has one that cannot be sent.
    """

    def __init__(self, settings: Settings) -> None:
        self._path = settings.api_keys_file
        self._own = [settings.api_key.get_secret_value()] if settings.api_key else []
        self._seen = self._signature()
        self._digests = _digests([*self._own, *(read_keys(self._path) if self._path else ())])

    @property
    def required(self) -> bool:
        return bool(self._digests)

    def refusal(self, values: list[bytes]) -> tuple[str, str] | None:
        """Why a request with these Authorization headers is refused, and the header WWW-Authenticate; else None.

        A key that is not ASCII is accepted in UTF-8, as most clients send it, and in Latin-1, as older HTTP specifies.
        Each key is compared, whichever matches.
        """
        realm = 'Bearer realm="costbank"'
        if not values:
            return f"this service requires a key: {_SEND}", realm
        scheme, _, sent = values[0].partition(b" ")
        if len(values) > 1 or scheme.lower() != b"bearer":
            return f"the Authorization header must be a single `Bearer <key>`: {_SEND}", realm
        digest = sha256(sent.lstrip(b" ")).digest()
        matches = [compare_digest(digest, known) for known in self._digests]
        if not any(matches):
            return "the key in the Authorization header is wrong", f'{realm}, error="invalid_token"'
        return None

    def reload(self) -> None:
        """Read the file of keys if it has changed. If it cannot be used, the last keys stay valid, and a log entry says
        why; it never contains a key."""
        signature = self._signature()
        if self._path is None or signature == self._seen:
            return
        self._seen = signature
        try:
            keys = read_keys(self._path)
        except UsageError as error:
            logger.error("%s; the keys read before stay valid", error.message)
            return
        self._digests = _digests([*self._own, *keys])
        logger.warning("read %d keys from %s", len(keys), self._path)

    def _signature(self) -> tuple[int, int, int] | None:
        try:
            stat = self._path.stat() if self._path else None
        except OSError:
            return None
        return (stat.st_ino, stat.st_size, stat.st_ctime_ns) if stat else None


def read_keys(path: Path) -> list[str]:
    """The keys of a file: one per line; empty lines and lines that begin with `#` do not count.

    Raises:
        UsageError: the file cannot be read, has no key, or has one that cannot be sent in a header.
    """
    try:
        lines = path.read_bytes().decode("utf-8", "surrogateescape").splitlines()
    except OSError as error:
        raise UsageError(f"the file of keys {path} cannot be read: {error.strerror}", "correct $COSTBANK_API_KEYS_FILE",
                         ) from None  # fmt: skip
    keys = []
    for number, line in enumerate(lines, 1):
        key = line.strip()
        if key and not key.startswith("#"):
            if problem := problem_with_key(key):
                raise UsageError(f"line {number} of {path}: {problem}", "use printable letters only")
            keys.append(key)
    if not keys:
        raise UsageError(f"the file of keys {path} has no key", "write one key per line into it")
    return keys


def _digests(keys: Iterable[str]) -> list[bytes]:
    return [sha256(encoded).digest() for key in keys for encoded in _encodings(key)]


def _encodings(key: str) -> set[bytes]:
    utf8 = key.encode("utf-8", "surrogateescape")
    try:
        return {utf8, key.encode("latin-1")}
    except UnicodeEncodeError:
        return {utf8}
