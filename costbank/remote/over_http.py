"""Banks of a costbank service, over HTTP."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from time import time
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from costbank.bank.layout import MANIFEST
from costbank.errors import BankNotFoundError, CorruptBankError, RemoteError, require
from costbank.files import FileDigest
from costbank.remote.addresses import BankAddress
from costbank.remote.origins import (
    BLOCK_BYTES,
    DAMAGED,
    MOST_MANIFEST_BYTES,
    FoundBank,
    ReplacedError,
    checked_manifest,
)
from costbank.remote.retries import Patience, TransientError

__all__ = ["KEY_VARIABLE", "HttpOrigin"]

KEY_VARIABLE = "COSTBANK_API_KEY"
_MOST_REDIRECTS = 5
_MOST_PROBLEM_BYTES = 1 << 14
_MOST_SHOWN = 300
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_DIGEST = re.compile(r'(?:W/)?"([0-9a-f]{64})"')
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


class HttpOrigin:
    """A costbank service. The key in `$COSTBANK_API_KEY` is sent to it, and to no host that it redirects to."""

    def __init__(self, address: BankAddress, patience: Patience) -> None:
        self._http: Any = require("urllib3", "remote")
        self._address = address
        self._pool = self._open_pool(patience)

    def _open_pool(self, patience: Patience) -> Any:
        timeout = self._http.Timeout(connect=min(patience.timeout, 10.0), read=patience.timeout)
        # Only redirects are left to the library, which drops the key when the host changes.
        retries = self._http.Retry(
            total=None, connect=0, read=0, other=0, status=0, redirect=_MOST_REDIRECTS,
            respect_retry_after_header=False,
        )  # fmt: skip
        settings: dict[str, Any] = {"timeout": timeout, "retries": retries, "maxsize": 8}
        parts = urlsplit(self._address.base)
        proxy = getproxies().get(parts.scheme)
        if proxy and not proxy_bypass(parts.hostname or ""):
            return self._http.ProxyManager(proxy, **settings)
        return self._http.PoolManager(**settings)

    def find(self) -> FoundBank:
        address = self._address
        reference = f"{address.name}@{address.prefix}" if address.prefix else address.name
        with self._get(f"{address.base}/{reference}/files/{MANIFEST}") as response:
            if response.status == 404:
                raise BankNotFoundError(*self._not_found(response))
            data = self._read(response, MOST_MANIFEST_BYTES + 1)
        manifest = checked_manifest(data, address)
        return FoundBank(f"{address.name}@{manifest.id}", data, manifest)

    def blocks(self, bank: FoundBank, file: str, digest: FileDigest, start: int) -> Iterator[bytes]:
        etag = f'"{digest.sha256}"'
        headers = {"Range": f"bytes={start}-", "If-Range": etag} if start else {}
        url = f"{self._address.base}/{bank.place}/files/{file}"
        with self._get(url, **headers) as response:
            if response.status in (404, 410, 412):
                raise ReplacedError
            served = _DIGEST.fullmatch(response.headers.get("ETag", ""))
            if served and served[1] != digest.sha256:
                raise ReplacedError
            skipped = _skipped(response, url, digest, start)
            while block := self._read(response, BLOCK_BYTES):
                yield block[skipped:] if skipped else block
                skipped = max(skipped - len(block), 0)

    @contextmanager
    def _get(self, url: str, **headers: str) -> Iterator[Any]:
        headers = {"Accept-Encoding": "identity", **{name.replace("_", "-"): v for name, v in headers.items()}}
        if key := os.environ.get(KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {key.strip()}".encode().decode("latin-1")
        try:
            response = self._pool.request("GET", url, headers=headers, preload_content=False)
        except self._http.exceptions.MaxRetryError as error:
            raise self._failure(url, error.reason or error) from error
        except self._http.exceptions.HTTPError as error:
            raise self._failure(url, error) from error
        except ValueError as error:  # a redirect to something that is not a URL, or a key that no header can hold
            raise RemoteError(f"{url} cannot be requested: {error}", f"check the URL and ${KEY_VARIABLE}") from error
        try:
            self._check(url, response)
            yield response
        finally:
            # Close the connection: to use it again, we would have to read the rest of the body.
            response.close() if response.length_remaining != 0 else response.release_conn()

    def _check(self, url: str, response: Any) -> None:
        status = response.status
        if status in _BUSY:
            raise TransientError(f"the server answered {status}", _retry_after(response))
        if status in (401, 403):
            sent = "the server refuses the key in" if os.environ.get(KEY_VARIABLE) else "the server requires a key in"
            raise RemoteError(
                f"{url}: {sent} ${KEY_VARIABLE} ({status})", f"export {KEY_VARIABLE}=… with the service's key"
            )
        if status not in (200, 206, 404, 410, 412):
            raise RemoteError(f"{url}: the server answered {status}{self._detail(response)}", "check the URL")
        if status in (200, 206) and response.headers.get("Content-Encoding", "identity") != "identity":
            raise RemoteError(
                f"{url} is compressed, although the request forbids it", "remove compression from the server's proxy"
            )

    def _failure(self, url: str, error: Any) -> Exception:
        exceptions = self._http.exceptions
        if isinstance(error, exceptions.SSLError):
            return RemoteError(
                f"{url}: the certificate is not accepted: {error}", "name your authority's file in $SSL_CERT_FILE"
            )
        if isinstance(error, exceptions.ResponseError | exceptions.LocationValueError):
            return RemoteError(
                f"{url} cannot be requested: {error}", "check the URL; the server may redirect in a loop"
            )
        return TransientError(f"the connection failed: {type(error).__name__}: {error}")

    def _read(self, response: Any, amount: int) -> bytes:
        try:
            return response.read(amount, decode_content=False)
        except self._http.exceptions.HTTPError as error:
            raise TransientError(f"the connection broke: {type(error).__name__}") from error

    def _not_found(self, response: Any) -> tuple[str, str]:
        detail = self._detail(response) or ": there is no such bank"
        return f"{self._address.url}{detail}", f"{self._address.base} lists the banks"

    def _detail(self, response: Any) -> str:
        """What the server says is wrong, with a colon before it; empty if it does not say so."""
        try:
            detail = json.loads(self._read(response, _MOST_PROBLEM_BYTES))["detail"]
        except (TransientError, ValueError, KeyError, TypeError, RecursionError):
            return ""
        text = "".join(letter if letter.isprintable() else " " for letter in str(detail))
        return f": {text[:_MOST_SHOWN]}"


def _skipped(response: Any, url: str, digest: FileDigest, start: int) -> int:
    """The number of bytes to skip at the start of a body; the server may send the whole file although a part is enough.

    Raises:
        CorruptBankError: the body belongs to a file of another size.
    """
    size = digest.size
    if response.status == 206:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != start:
            raise CorruptBankError(f"{url}: the server sent another part than the one that was requested", DAMAGED)
        size, start = int(match[3]), 0
    elif (length := response.headers.get("Content-Length", "")).isdigit():
        size = int(length)
    if size != digest.size:
        raise CorruptBankError(f"{url} has {size:,} bytes instead of {digest.size:,}", DAMAGED)
    return start


def _retry_after(response: Any) -> float:
    """The seconds of the header Retry-After, which is a number or a date; 0 without one."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value[:6])
    try:
        return max(parsedate_to_datetime(value).timestamp() - time(), 0.0)
    except (TypeError, ValueError):
        return 0.0
