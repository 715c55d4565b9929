"""Open a bank by its URL, through a cache on this machine, or copy it into a store."""

import hashlib
import json
import os
import re
import sys
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast, get_args

from platformdirs import user_cache_path

from costbank.bank.layout import ID_PATTERN, LATEST
from costbank.bank.reader import Bank
from costbank.bank.store import NAME_PATTERN, Store, default_store
from costbank.bank.verify import verify_bank
from costbank.errors import CorruptBankError, CostbankError, UnreachableError, UsageError
from costbank.files import locked, storage_errors, write_atomically
from costbank.progress import LogProgress, Progress, TerminalProgress
from costbank.remote.addresses import BankAddress, parse_address
from costbank.remote.claims import ClaimTimes
from costbank.remote.copies import Copier
from costbank.remote.origins import Origin
from costbank.remote.retries import Patience

__all__ = ["OfflineWarning", "bank_cache", "open_url", "pull_bank"]

Offline = Literal["fallback", "refuse", "only"]
_VARIABLE = "COSTBANK_OFFLINE"


class OfflineWarning(UserWarning):
    """A bank is opened from the cache because its server cannot be reached; it may not be the latest."""


def bank_cache() -> Path:
    """The directory of cached banks: `banks` in `$COSTBANK_CACHE`, else in the platform's cache directory."""
    return Path(os.environ.get("COSTBANK_CACHE") or user_cache_path("costbank")) / "banks"


def open_url(
    url: str,
    *,
    cache: str | Path | None = None,
    offline: Offline | None = None,
    progress: Progress | None = None,
    patience: Patience = Patience(),
    times: ClaimTimes = ClaimTimes(),
) -> Bank:
    """Open the bank at a URL. The first time, it is downloaded, verified and kept in the cache.

    A URL that names all 16 digits of the id, or a commit of the Hub, is opened from the cache without any request.
    Processes that open the same bank at the same time, on one machine or on several with one file system, make one
    download. An interrupted download is continued.

    Args:
        url: `http://host:8137/v1/banks/NAME` of a costbank service; `hf://ORGANIZATION/REPOSITORY` of the Hugging Face
            Hub; or `s3://BUCKET/PATH/NAME` and the like, for a directory of banks on a filesystem of fsspec. `@ID`
            after a name, and `@REVISION` after a repository, choose another bank than the latest.
        cache: the directory of cached banks, which has the layout of a store; by default `bank_cache()`.
        offline: what to do if the server cannot be reached. `fallback`: warn, and open the bank that the URL referred
            to last. `refuse`: raise the error. `only`: send no request at all. By default `$COSTBANK_OFFLINE`, else
            `fallback`.
        progress: receives the progress; by default a bar on a terminal, else the logger `costbank`.
        patience: how long to go on after errors that pass.
        times: how long to wait for other processes that download the same bank.

    Raises:
        UsageError: the URL is not that of a bank, or `offline` is not one of these.
        BankNotFoundError: there is no such bank.
        CorruptBankError: the files differ from the manifest, or the manifest from the id.
        RemoteError: the request is refused, for example because a key is missing.
        UnreachableError: the server cannot be reached, and the bank is not in the cache, or may not be used.
        StorageError: the cache is not writable, or the disk is full.
        MissingExtraError: a library is not installed.
    """
    address = parse_address(url)
    directory = (Path(cache) if cache else bank_cache()) / address.name
    policy = _policy(offline)
    known = address.id or _last_id(directory, address)
    cached = directory / known if known and (directory / known).is_dir() else None
    if cached and (address.is_fixed or policy == "only"):
        return Bank(cached)
    if policy == "only":
        raise UnreachableError(f"{url} is not in the cache {directory.parent}, and ${_VARIABLE} is `only`",
                               f"open it once with a network, or unset ${_VARIABLE}")  # fmt: skip
    if cached:
        patience = replace(patience, attempts=min(patience.attempts, 3))
    try:
        bank_id = _copier(address, directory, progress or _shown_progress(), patience, times).run()
    except UnreachableError as error:
        if cached is None or policy == "refuse":
            raise
        warnings.warn(
            OfflineWarning(f"{error.message}; using {address.name}@{cached.name}, which it referred to last"),
            stacklevel=2,
        )
        return Bank(cached)
    _remember(directory, address, bank_id)
    return Bank(directory / bank_id)


def pull_bank(
    url: str,
    name: str | None = None,
    store: str | Path | None = None,
    *,
    progress: Progress | None = None,
    patience: Patience = Patience(),
    times: ClaimTimes = ClaimTimes(),
) -> Bank:
    """Copy the bank at a URL into a store, where it becomes the latest of its name.

    Args:
        url: as in `open_url`.
        name: the bank's name in the store; by default that in the URL.
        store: the directory of banks; by default `$COSTBANK_STORE`, else the platform's data directory.
        progress: as in `open_url`.
        patience: as in `open_url`.
        times: as in `open_url`.

    Raises:
        UsageError: the URL is not that of a bank, or the name is malformed.
        CostbankError: as in `open_url`; but if the server cannot be reached, no cached bank is used instead.
        CorruptBankError: also if the store has this bank already, and it is damaged.
    """
    address = parse_address(url)
    if name is not None and not re.fullmatch(NAME_PATTERN, name):
        raise UsageError(
            f"{name!r} is not a bank name",
            "use at most 64 lower-case letters, digits, '.', '_' and '-', beginning with a letter or digit",
        )
    directory = (Path(store) if store else default_store()) / (name or address.name)
    before = {bank.id for bank in Store(directory.parent).banks_of(directory.name)}
    copier = _copier(address, directory, progress or _shown_progress(), patience, times)
    path = directory / replace(copier, lock=locked).run()
    if path.name in before:
        # The lock keeps other processes from removing the bank before `latest` names it.
        with storage_errors(directory), locked(directory):
            if damaged := [check for check in verify_bank(path) if not check.ok]:
                raise CorruptBankError(
                    f"the bank {path} exists already and is damaged: {damaged[0].name}: {damaged[0].problem}",
                    f"remove {path} and pull again",
                )
            write_atomically(directory / LATEST, f"{path.name}\n".encode())
    return Bank(path)


def _copier(address: BankAddress, directory: Path, progress: Progress, patience: Patience, times: ClaimTimes) -> Copier:
    return Copier(address, _open_origin(address, patience), directory, progress, patience, times)


def _open_origin(address: BankAddress, patience: Patience) -> Origin:
    """The origin of an address. No request is sent.

    Raises:
        MissingExtraError: a library is not installed.
        UsageError: the scheme of the URL is unknown.
    """
    if address.kind == "service":
        from costbank.remote.over_http import HttpOrigin

        return HttpOrigin(address, patience)
    if address.kind == "hub":
        from costbank.remote.hub import HubOrigin

        return HubOrigin(address)
    from costbank.remote.buckets import BucketOrigin

    return BucketOrigin(address)


def _policy(offline: str | None) -> Offline:
    value = offline or os.environ.get(_VARIABLE) or "fallback"
    if value not in get_args(Offline):
        raise UsageError(f"offline is {value!r}", f"give one of {', '.join(get_args(Offline))} (${_VARIABLE})")
    return cast(Offline, value)


def _shown_progress() -> Progress:
    if not sys.stderr.isatty():
        return LogProgress()
    from rich.console import Console

    return TerminalProgress(Console(stderr=True))


def _record(directory: Path, address: BankAddress) -> Path:
    """The file that remembers which id a URL referred to last."""
    return directory / f".resolved-{hashlib.sha256(address.url.encode()).hexdigest()[:16]}"


def _last_id(directory: Path, address: BankAddress) -> str | None:
    try:
        bank_id = json.loads(_record(directory, address).read_bytes())["id"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return bank_id if isinstance(bank_id, str) and re.fullmatch(ID_PATTERN, bank_id) else None


def _remember(directory: Path, address: BankAddress, bank_id: str) -> None:
    if _last_id(directory, address) == bank_id or address.id is not None:
        return
    with suppress(CostbankError, OSError):  # a cache that is complete may be read-only
        write_atomically(_record(directory, address), json.dumps({"url": address.url, "id": bank_id}).encode())
