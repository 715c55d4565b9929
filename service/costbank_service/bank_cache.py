"""The banks of a store, loaded on request and kept in memory up to a limit.

Banks are loaded, not memory-mapped, so a file that is truncated later cannot crash the process. While a bank's files
change, or if they are damaged, the service keeps serving the loaded copy, which is still the bank with this id.
"""

import asyncio
import logging
import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TypeVar

import numpy as np
from starlette.concurrency import run_in_threadpool

from costbank.bank import NAME_PATTERN, LoadedBank, NearestTokens, Store, StoredBank
from costbank.bank.layout import NEIGHBORS, TOKENS
from costbank.bank.manifest import Manifest, check_sizes, load_manifest
from costbank.errors import BankNotFoundError, CorruptBankError, CostbankError
from costbank_service.problems import ServiceError

__all__ = ["BankCache", "BankTooLargeError"]

_REFERENCE = re.compile(rf"{NAME_PATTERN}(@[0-9a-f]{{4,16}})?")
_MAX_BANKS = 64
_MAX_SHOWN = 80
_MAX_NAMES = 20
_MAX_REFERENCES = 4_096
_RECENT_SECONDS = 2.0
_RETRY_SECONDS = 1.0
_RESOLUTIONS = 3

_Found = TypeVar("_Found")

logger = logging.getLogger("costbank.service")

Signature = tuple[tuple[str, int, int, int], ...]
"""Name, inode, size and change time of each file of a directory."""


class BankTooLargeError(ServiceError):
    code = "bank-too-large"
    title = "The bank exceeds the service's memory limit"
    http_status = 507


@dataclass
class _Entry:
    """The last loaded copy of a bank, and the signatures of its files when it was loaded and at the last failure."""

    lock: Lock = field(default_factory=Lock)
    bank: LoadedBank | None = None
    loaded: Signature | None = None
    failed: Signature | None = None
    error: CostbankError | None = None
    retry_at: float = 0.0


class BankCache:
    """Loads and keeps banks of one store.

    A reference that was resolved less than `refresh_seconds` ago leads to its loaded bank without a look at the store.
    New banks, names with a new latest bank, and changed files are therefore served after that time at the latest.

    Args:
        store: the directory of banks.
        max_bytes: limit for tables and indexes in memory; beyond it, the least recently used banks are dropped.
        refresh_seconds: how long a resolved reference holds; with 0, the store is read for each request.
    """

    def __init__(self, store: Path, max_bytes: int, refresh_seconds: float = 0.0) -> None:
        self.store = Store(store)
        self._max_bytes = max_bytes
        self._refresh_seconds = refresh_seconds
        self._entries: OrderedDict[Path, _Entry] = OrderedDict()
        self._recent: dict[str, tuple[float, LoadedBank]] = {}
        self._loads: dict[str, asyncio.Task[LoadedBank]] = {}
        self._lock = Lock()

    def recent(self, reference: str) -> LoadedBank | None:
        """The bank, if the reference was resolved recently; reads no file and takes no lock."""
        resolved = self._recent.get(reference)
        return resolved[1] if resolved and time.monotonic() < resolved[0] else None

    async def opened(self, reference: str) -> LoadedBank:
        """`recent`, else `bank` in a thread. Concurrent requests for one reference share the thread's result."""
        if bank := self.recent(reference):
            return bank
        task = self._loads.get(reference)
        if task is None:
            task = self._loads[reference] = asyncio.create_task(run_in_threadpool(self.bank, reference))
            task.add_done_callback(lambda done: self._ended(reference, done))
        return await asyncio.shield(task)

    def _ended(self, reference: str, task: asyncio.Task[LoadedBank]) -> None:
        del self._loads[reference]
        if not task.cancelled():
            task.exception()  # so that asyncio does not log it if every request for it has gone

    def bank(self, reference: str) -> LoadedBank:
        """The bank `name` or `name@idprefix`, loaded. A path is not accepted.

        Raises:
            BankNotFoundError, UsageError, CorruptBankError: as in `open_bank`.
            BankTooLargeError: its table alone exceeds the limit.
        """
        until = time.monotonic() + self._refresh_seconds  # counted from before the store is read
        bank = self.using(reference, self._load)
        if self._refresh_seconds:
            with self._lock:
                if len(self._recent) >= _MAX_REFERENCES:
                    self._recent.clear()
                self._recent[reference] = (until, bank)
        self._trim()
        return bank

    @property
    def resident(self) -> tuple[int, int]:
        """The number of banks in memory, and their bytes."""
        with self._lock:
            sizes = [entry.bank.resident_bytes for entry in self._entries.values() if entry.bank]
        return len(sizes), sum(sizes)

    def quarantined(self) -> Iterator[tuple[StoredBank, str]]:
        """The banks of the store whose files are damaged, and what is wrong in general; other banks are served."""
        for stored in self.store.banks():
            entry = self._entries.get(stored.path)
            if entry and isinstance(entry.error, CorruptBankError) and _signature(stored.path) == entry.failed:
                yield stored, entry.error.title
                continue
            try:
                self.manifest_at(stored.path)
            except CostbankError as error:
                if stored.path.exists():
                    yield stored, error.title

    def manifest(self, reference: str) -> tuple[str, Manifest]:
        """The name and the manifest of a bank; nothing is loaded.

        Raises:
            BankNotFoundError, UsageError, CorruptBankError: as in `open_bank`.
        """
        return self.using(reference, lambda path: (path.parent.name, self.manifest_at(path)))

    def manifest_at(self, path: Path) -> Manifest:
        """The manifest of the bank in a directory of the store, after a check of the sizes of its files."""
        manifest = load_manifest(path)
        check_sizes(path, manifest)
        return manifest

    def search(self, bank: LoadedBank, token: int, k: int) -> NearestTokens:
        """The nearest tokens beyond the bank's neighbor table; uses its index if that fits into memory."""
        return self._searched(bank, lambda with_index: bank.search_nearest(token, k, with_index))

    def search_vectors(self, bank: LoadedBank, vectors: np.ndarray, k: int) -> list[NearestTokens]:
        """The tokens nearest to each vector; uses the bank's index if that fits into memory."""
        return self._searched(bank, lambda with_index: bank.search_vectors(vectors, k, with_index))

    def _searched(self, bank: LoadedBank, search: Callable[[bool], _Found]) -> _Found:
        try:
            return search(self._may_load_index(bank))
        except CorruptBankError:
            if bank.path.exists():
                raise
            # The bank was removed or renamed before its index was loaded. Its rows are in a file that is still open.
            return search(False)
        finally:
            self._trim()

    def _may_load_index(self, bank: LoadedBank) -> bool:
        return bank.resident_bytes + bank.index_bytes <= self._max_bytes

    def _trim(self) -> None:
        """Drop the least recently used banks until the rest fits; the most recent one stays."""
        with self._lock:
            used = sum(entry.bank.resident_bytes for entry in self._entries.values() if entry.bank)
            while len(self._entries) > 1 and (used > self._max_bytes or len(self._entries) > _MAX_BANKS):
                _, dropped = self._entries.popitem(last=False)
                used -= dropped.bank.resident_bytes if dropped.bank else 0
            kept = {id(entry.bank) for entry in self._entries.values()}
            for reference in [name for name, (_, bank) in self._recent.items() if id(bank) not in kept]:
                del self._recent[reference]

    def using(self, reference: str, use: Callable[[Path], _Found]) -> _Found:
        """What `use` returns for the bank's directory. If the bank is removed meanwhile, its name is resolved again.

        Raises:
            BankNotFoundError, UsageError, CorruptBankError: as in `open_bank`, and what `use` raises.
        """
        error: CostbankError | None = None
        for _ in range(_RESOLUTIONS):
            path = self._resolve(reference)
            try:
                return use(path)
            except (BankNotFoundError, CorruptBankError) as caught:
                # A bank that is removed loses its files, and the same one may be there again at the next look.
                error = caught if isinstance(caught, CorruptBankError) and path.exists() else None
        if error:
            raise error
        raise BankNotFoundError(f"there is no bank {reference}", self._names())

    def _resolve(self, reference: str) -> Path:
        if not _REFERENCE.fullmatch(reference):
            shown = reference[:_MAX_SHOWN]
            raise BankNotFoundError(
                f"{shown!r} is not a bank reference", "use a name, or name@ followed by 4 to 16 hex digits"
            )
        try:
            return self.store.resolve_name(reference)
        except BankNotFoundError:  # its message contains paths
            raise BankNotFoundError(f"there is no bank {reference}", self._names()) from None

    def _names(self) -> str:
        names = sorted({bank.name for bank in self.store.banks()})
        if not names:
            return "this service has no banks yet"
        more = "; /v1/banks lists all of them" if len(names) > _MAX_NAMES else ""
        return f"the banks are: {', '.join(names[:_MAX_NAMES])}{more}"

    def _load(self, path: Path) -> LoadedBank:
        with self._lock:
            entry = self._entries.setdefault(path, _Entry())
            self._entries.move_to_end(path)
        with entry.lock:
            current = _signature(path)  # before loading, so that a change during the load is noticed
            if entry.bank is None or current != entry.loaded:
                self._reload(entry, path, current)
            bank = entry.bank
        if bank is None:
            raise entry.error or BankNotFoundError(f"there is no bank {path.parent.name}@{path.name}", self._names())
        return bank

    def _reload(self, entry: _Entry, path: Path, current: Signature) -> None:
        """Load the bank, unless these files failed to load before and have not changed since."""
        now = time.monotonic()
        if entry.error and (now < entry.retry_at or (current == entry.failed and not _is_recent(current))):
            return
        try:
            manifest = load_manifest(path)
            size = sum(manifest.files[name].size for name in (TOKENS, NEIGHBORS))
            if size > self._max_bytes:
                raise BankTooLargeError(
                    f"the bank's table takes {size >> 20:,} MB, but this service may use {self._max_bytes >> 20:,} MB",
                    "start the service with a larger $COSTBANK_MAX_MEMORY_MB",
                )
            entry.bank, entry.loaded, entry.error = LoadedBank(path), current, None
        except (CostbankError, OSError) as error:
            if not isinstance(error, CostbankError):
                error = BankNotFoundError(f"there is no bank {path.parent.name}@{path.name}", self._names())
            entry.error, entry.failed, entry.retry_at = error, current, now + _RETRY_SECONDS
            if entry.bank:
                logger.warning("%s: %s; still serving the copy in memory", path, error.args[0])
            elif isinstance(error, CorruptBankError) and path.exists():
                logger.error("%s is quarantined: %s", path, error.args[0])


def _signature(path: Path) -> Signature:
    try:
        with os.scandir(path) as entries:
            facts = [(entry.name, entry.stat()) for entry in entries]
    except OSError:
        return ()
    return tuple(sorted((name, stat.st_ino, stat.st_size, stat.st_ctime_ns) for name, stat in facts))


def _is_recent(signature: Signature) -> bool:
    """Whether a file changed so recently that a writer may still be busy, or change it again within one clock tick."""
    return any(abs(time.time() - changed / 1e9) < _RECENT_SECONDS for _, _, _, changed in signature)
