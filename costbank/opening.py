"""Open a bank, on this machine or by URL."""

from pathlib import Path
from typing import TYPE_CHECKING

from costbank import bank
from costbank.urls import is_url

if TYPE_CHECKING:
    from costbank.bank import Bank

__all__ = ["open_bank"]


def open_bank(reference: str | Path, store: str | Path | None = None) -> "Bank":
    """Open a bank by `name`, `name@idprefix`, path or URL. Rows are read from disk when they are used.

    A bank at a URL is downloaded once, verified, and kept in a cache; `costbank.remote.open_url` has the options.

    Args:
        reference: which bank; a bare name means the id in its file `latest`. URLs begin with http, https, hf, s3 or
            another scheme that fsspec knows.
        store: the directory of banks; by default `$COSTBANK_STORE`, else the platform's data directory.

    Raises:
        UsageError, BankNotFoundError: the reference matches no bank, or is neither a string nor a path.
        CorruptBankError: the manifest was changed, a file's size differs from the manifest's, or a downloaded file is
            not the one in the manifest.
        RemoteError: a server refuses the request, or cannot be reached.
    """
    if isinstance(reference, str) and is_url(reference):
        from costbank.remote import open_url

        return open_url(reference)
    return bank.open_bank(reference, store)
