"""The banks that the service holds, found by the references of the URL, within a bound on memory.

A bank is loaded, not mapped: what happens to its files later ends no process. While its files change, or when they are
damaged, the service goes on with what it has loaded, which is what the bank's id names.
"""

import logging
import os
import re
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from costbank.bank import NAME_PATTERN, LoadedBank, NearestTokens, Store
from costbank.bank.manifest import NEIGHBORS, TOKENS, Manifest, check_sizes, load_manifest
from costbank.errors import BankNotFoundError, CostbankError
from costbank_service.problems import ServiceError

__all__ = ["Registry"]

_REFERENCE = re.compile(rf"{NAME_PATTERN}(@[0-9a-f]{{4,16}})?")
_MOST_OPEN = 64
_MOST_SHOWN = 80
_MOST_NAMES = 20
_YOUNG_SECONDS = 2.0
_RETRY_SECONDS = 1.0

logger = logging.getLogger("costbank.service")

Signature = tuple[tuple[str, int, int, int], ...]
"""Name, inode, size and time of the last change of each file of a directory."""


class BankTooLargeError(ServiceError):
    code = "bank-too-large"
    title = "The bank does not fit into the service's memory"
    http_status = 507


@dataclass
class _Entry:
    """One bank, as it was last loaded, and the state of its files at that time and at the last failure."""

    lock: Lock = field(default_factory=Lock)
    bank: LoadedBank | None = None
    loaded: Signature | None = None
    failed: Signature | None = None
    error: CostbankError | None = None
    retry_at: float = 0.0


class Registry:
    """Loads banks of one store. A name is resolved at each call, so a bank that is built meanwhile is found.

    Args:
        store: the directory of banks.
        max_bytes: of tables and indexes in memory; those used least recently are dropped beyond it.
    """

    def __init__(self, store: Path, max_bytes: int) -> None:
        self.store = Store(store)
        self._max_bytes = max_bytes
        self._entries: OrderedDict[Path, _Entry] = OrderedDict()
        self._lock = Lock()

    def bank(self, reference: str) -> LoadedBank:
        """The bank of `name` or `name@idprefix`, loaded. A path is not a reference here, whatever it points to.

        Raises:
            BankNotFoundError, UsageError, CorruptBankError: as in `open_bank`.
            BankTooLargeError: its table alone exceeds the bound.
        """
        return self._load(self._resolve(reference))

    def manifest(self, reference: str) -> tuple[str, Manifest]:
        """The name and the manifest of a bank, of which nothing is loaded.

        Raises:
            BankNotFoundError, UsageError, CorruptBankError: as in `open_bank`.
        """
        path = self._resolve(reference)
        return path.parent.name, self.manifest_at(path)

    def manifest_at(self, path: Path) -> Manifest:
        """The manifest of the bank in a directory of the store, whose files have the sizes that it says."""
        manifest = load_manifest(path)
        check_sizes(path, manifest)
        return manifest

    def search(self, bank: LoadedBank, token: int, k: int) -> NearestTokens:
        """The nearest tokens beyond the bank's table; by its index, where that fits into memory."""
        try:
            return bank.search_nearest(token, k, bank.resident_bytes + bank.index_bytes <= self._max_bytes)
        finally:
            self._trim()

    def _resolve(self, reference: str) -> Path:
        if not _REFERENCE.fullmatch(reference):
            shown = reference[:_MOST_SHOWN]
            raise BankNotFoundError(
                f"{shown!r} does not name a bank", "write a name, or name@ followed by 4 to 16 hex digits"
            )
        try:
            return self.store.resolve_name(reference)
        except BankNotFoundError:  # whose words name directories
            raise BankNotFoundError(f"there is no bank {reference}", self._names()) from None

    def _names(self) -> str:
        names = sorted({place.name for place in self.store.banks()})
        if not names:
            return "this service has no banks yet"
        more = "; all of them: /v1/banks" if len(names) > _MOST_NAMES else ""
        return f"there are: {', '.join(names[:_MOST_NAMES])}{more}"

    def _load(self, path: Path) -> LoadedBank:
        with self._lock:
            entry = self._entries.setdefault(path, _Entry())
            self._entries.move_to_end(path)
        with entry.lock:
            state = _signature(path)  # before loading, so that later changes differ from it
            if entry.bank is None or state != entry.loaded:
                self._reload(entry, path, state)
            bank = entry.bank
        if bank is None:
            raise entry.error or BankNotFoundError(f"there is no bank {path.parent.name}@{path.name}", self._names())
        self._trim()
        return bank

    def _reload(self, entry: _Entry, path: Path, state: Signature) -> None:
        """Load the bank, unless that has failed with these same files and they are no longer being written."""
        now = time.monotonic()
        if entry.error and (now < entry.retry_at or (state == entry.failed and not _is_young(state))):
            return
        try:
            manifest = load_manifest(path)
            size = sum(manifest.files[name].size for name in (TOKENS, NEIGHBORS))
            if size > self._max_bytes:
                raise BankTooLargeError(
                    f"its table takes {size >> 20:,} MB, and this service may hold {self._max_bytes >> 20:,} MB",
                    "start it with a larger $COSTBANK_MAX_MEMORY_MB",
                )
            entry.bank, entry.loaded, entry.error = LoadedBank(path), state, None
        except (CostbankError, OSError) as error:
            if not isinstance(error, CostbankError):
                error = BankNotFoundError(f"there is no bank {path.parent.name}@{path.name}", self._names())
            entry.error, entry.failed, entry.retry_at = error, state, now + _RETRY_SECONDS
            if entry.bank:
                logger.warning("%s: %s; what is in memory is served", path, error.args[0])

    def _trim(self) -> None:
        """Drop the banks used least recently, but for the last, until the rest fits."""
        with self._lock:
            held = sum(entry.bank.resident_bytes for entry in self._entries.values() if entry.bank)
            while len(self._entries) > 1 and (held > self._max_bytes or len(self._entries) > _MOST_OPEN):
                _, dropped = self._entries.popitem(last=False)
                held -= dropped.bank.resident_bytes if dropped.bank else 0


def _signature(path: Path) -> Signature:
    try:
        with os.scandir(path) as entries:
            facts = [(entry.name, entry.stat()) for entry in entries]
    except OSError:
        return ()
    return tuple(sorted((name, stat.st_ino, stat.st_size, stat.st_ctime_ns) for name, stat in facts))


def _is_young(state: Signature) -> bool:
    """Whether a file was changed so lately that it may be being written, or may change again within a tick."""
    return any(abs(time.time() - changed / 1e9) < _YOUNG_SECONDS for _, _, _, changed in state)
