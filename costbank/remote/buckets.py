"""Banks of a store in a bucket, or on any other filesystem of fsspec."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from costbank.bank.layout import ID_PATTERN, MANIFEST
from costbank.errors import BankNotFoundError, CorruptBankError, CostbankError, RemoteError, UsageError
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
from costbank.remote.retries import TransientError
from costbank.urls import remote_filesystem

__all__ = ["BucketOrigin", "file_blocks", "passing_errors"]

_READ_BYTES = 8 * BLOCK_BYTES
_PERMISSION_HINT = "check your credentials, which the library of this URL scheme reads from its own variables and files"


@contextmanager
def passing_errors(url: str) -> Iterator[None]:
    """Convert exceptions of fsspec and the libraries behind it. A missing file stays a FileNotFoundError.

    Raises:
        RemoteError: permission is denied, or there are no credentials.
        TransientError: any other failure; each library has its own exceptions.
    """
    try:
        yield
    except (CostbankError, TransientError, ReplacedError, FileNotFoundError, GeneratorExit):
        raise
    except PermissionError as error:
        raise RemoteError(f"{url}: permission denied: {error}", _PERMISSION_HINT) from error
    except Exception as error:
        if "credentials" in f"{type(error).__name__} {error}".lower():
            raise RemoteError(f"{url}: {error}", _PERMISSION_HINT) from error
        raise TransientError(f"{type(error).__name__}: {error}") from error


class BucketOrigin:
    """A directory of banks, with the layout of a store."""

    def __init__(self, address: BankAddress) -> None:
        self._address = address
        self._filesystem, path = remote_filesystem(address.base, "remote")
        self._directory = f"{path.rstrip('/')}/{address.name}"

    def find(self) -> FoundBank:
        self._filesystem.invalidate_cache()
        with passing_errors(self._address.url):
            try:
                place = f"{self._directory}/{self._address.id or self._resolve()}"
                data = read_start(self._filesystem, f"{place}/{MANIFEST}")
            except FileNotFoundError:
                raise self._not_found() from None
        return FoundBank(place, data, checked_manifest(data, self._address))

    def blocks(self, bank: FoundBank, file: str, digest: FileDigest, start: int) -> Iterator[bytes]:
        yield from file_blocks(self._filesystem, f"{bank.place}/{file}", digest, start)

    def _resolve(self) -> str:
        """The id that the address refers to."""
        if not self._address.prefix:
            latest = read_start(self._filesystem, f"{self._directory}/latest")[:64].decode("ascii", "replace").strip()
            if not re.fullmatch(ID_PATTERN, latest):
                raise CorruptBankError(f"{self._address.url}: the file `latest` does not hold an id", DAMAGED)
            return latest
        ids = sorted(path.rstrip("/").rpartition("/")[2] for path in self._filesystem.ls(self._directory, detail=False))
        matches = [i for i in ids if re.fullmatch(ID_PATTERN, i) and i.startswith(self._address.prefix)]
        if len(matches) > 1:
            raise UsageError(f"{self._address.url} matches several banks", f"give more digits: {', '.join(matches)}")
        if not matches:
            raise self._not_found()
        return matches[0]

    def _not_found(self) -> BankNotFoundError:
        return BankNotFoundError(
            f"there is no bank at {self._address.url}",
            "check the name and the id; a bank that is still being pushed has no manifest yet",
        )


def read_start(filesystem: Any, path: str) -> bytes:
    """A small file; of a large one, only enough to see that it is too large for a manifest."""
    with filesystem.open(path, "rb") as handle:
        return handle.read(MOST_MANIFEST_BYTES + 1)


def file_blocks(filesystem: Any, path: str, digest: FileDigest, start: int) -> Iterator[bytes]:
    """The bytes of a file on a filesystem of fsspec, as `Origin.blocks` gives them."""
    with passing_errors(path):
        try:
            with filesystem.open(path, "rb", block_size=_READ_BYTES, cache_type="none") as handle:
                size = getattr(handle, "size", None)
                if size is not None and size != digest.size:
                    raise CorruptBankError(f"{path} has {size:,} bytes instead of {digest.size:,}", DAMAGED)
                handle.seek(start)
                while block := handle.read(_READ_BYTES):
                    yield block
        except FileNotFoundError:
            raise ReplacedError from None
