"""What a costbank service, a bucket and the Hub have in common: they find a bank, and give the bytes of its files."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from costbank.bank.layout import MANIFEST
from costbank.bank.manifest import Manifest, read_manifest
from costbank.errors import CorruptBankError
from costbank.files import FileDigest
from costbank.remote.addresses import BankAddress

__all__ = [
    "BLOCK_BYTES",
    "DAMAGED",
    "MOST_MANIFEST_BYTES",
    "FoundBank",
    "Origin",
    "ReplacedError",
    "checked_manifest",
]

BLOCK_BYTES = 1 << 20
MOST_MANIFEST_BYTES = 16 << 20
NOT_A_BANK = "check that the URL is that of a bank; if it is, its copy there is damaged"
DAMAGED = "the copy at this URL is damaged; whoever keeps it can find the file with `costbank verify`"
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


class ReplacedError(Exception):
    """A file of the bank that was found is gone or is another one by now; internal to this package."""


@dataclass(frozen=True)
class FoundBank:
    """A bank that an address refers to now.

    Attributes:
        place: where the origin has it.
        data: the bytes of its manifest.json.
        manifest: their content, checked.
    """

    place: str
    data: bytes
    manifest: Manifest


class Origin(Protocol):
    """A place with banks, on another machine."""

    def find(self) -> FoundBank:
        """The bank that the address refers to now.

        Raises:
            BankNotFoundError: there is none.
            CorruptBankError: its manifest is damaged, or its id is not the one of the address.
            RemoteError: the request is refused.
            CorruptBankError: its manifest is damaged, or has another id than the address.
            TransientError: it failed for a reason that may pass.
        """
        ...

    def blocks(self, bank: FoundBank, file: str, digest: FileDigest, start: int) -> Iterator[bytes]:
        """The bytes of a file of that bank from `start` on, in blocks. They may end early, and may be wrong.

        Raises:
            ReplacedError: the file is gone, or the origin says that it is another one.
            CorruptBankError: the origin says that it has another size.
            RemoteError, TransientError: as in `find`.
        """
        ...


def checked_manifest(data: bytes, address: BankAddress) -> Manifest:
    """The content of the manifest.json that an origin sent.

    Raises:
        CorruptBankError: it is too large, is not a manifest, was changed, lists files outside of the bank's directory,
            or has another id than the address.
    """
    url = address.url
    if len(data) > MOST_MANIFEST_BYTES:
        raise CorruptBankError(f"the manifest of {url} has more than {MOST_MANIFEST_BYTES >> 20} MB", NOT_A_BANK)
    try:
        manifest = read_manifest(data, f"the manifest of {url}")
    except CorruptBankError as error:
        raise CorruptBankError(error.message, error.hint if "upgrade" in error.hint else NOT_A_BANK) from error
    if not manifest.id.startswith(address.prefix):
        raise CorruptBankError(f"{url} answered with the bank {manifest.id}", NOT_A_BANK)
    if foreign := [name for name in manifest.files if not _FILE.fullmatch(name) or name == MANIFEST]:
        raise CorruptBankError(f"the manifest of {url} lists a file {foreign[0][:80]!r}", NOT_A_BANK)
    return manifest
