"""Verified copies of remote banks in a directory of this machine, which has the layout of a store.

A copy is made in `<store>/<name>/.pull-<id>-…`, and renamed to `<store>/<name>/<id>` when every file in it is verified
and synced. An interrupted download stays there, and the next download of this bank continues it.
"""

import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from costbank.bank.layout import LATEST, MANIFEST
from costbank.bank.reader import Bank
from costbank.errors import CorruptBankError, RemoteError, StorageError
from costbank.files import fsync_directory, remove_if_empty, storage_errors, write_atomically
from costbank.progress import Progress
from costbank.remote.addresses import BankAddress
from costbank.remote.claims import ClaimTimes, claimed
from costbank.remote.downloads import Download, remaining_bytes
from costbank.remote.origins import FoundBank, Origin, ReplacedError
from costbank.remote.retries import Patience, retrying

__all__ = ["Copier"]

_MOST_REPLACEMENTS = 3
_SPARE_BYTES = 16 << 20
_FORGOTTEN_S = 7 * 86_400

Lock = Callable[[Path], AbstractContextManager[None]]


def _unlocked(_directory: Path) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True)
class Copier:
    """Copies one bank from its origin into `<store>/<name>`.

    Attributes:
        address, origin: from where.
        directory: `<store>/<name>`.
        progress: receives the progress.
        patience: how long to go on after errors that pass.
        times: how long to wait for other processes that copy the same bank.
        lock: what is held while the bank becomes visible and the latest of its name. In a store, that is the lock of
            writers and removals; a cache on a network file system has none.
    """

    address: BankAddress
    origin: Origin
    directory: Path
    progress: Progress
    patience: Patience = field(default_factory=Patience)
    times: ClaimTimes = field(default_factory=ClaimTimes)
    lock: Lock = field(default=_unlocked)

    def run(self) -> str:
        """Copy the bank that the address refers to now, unless it is there already.

        Returns:
            Its id, which is the name of its directory.

        Raises:
            BankNotFoundError, CorruptBankError, RemoteError, UnreachableError: see `Origin`.
            StorageError: the directory is not writable, or the disk is full.
        """
        for _ in range(_MOST_REPLACEMENTS):
            try:
                if self.address.id is not None:
                    return self._copy(self.address.id, None)
                found = self._find()
                return self._copy(found.manifest.id, found)
            except ReplacedError:
                self.progress.note(f"{self.address.url} was replaced during the download; starting again")
        raise RemoteError(
            f"{self.address.url} was replaced or removed during the download, {_MOST_REPLACEMENTS} times",
            "try again later",
        )

    def _find(self) -> FoundBank:
        return retrying(self.patience, self.address.url, self.origin.find)

    def _copy(self, bank_id: str, found: FoundBank | None) -> str:
        final = self.directory / bank_id
        if final.is_dir():
            return bank_id
        missing = [path for path in (self.directory, *self.directory.parents) if not path.exists()]
        try:
            with storage_errors(self.directory):
                self.directory.mkdir(parents=True, exist_ok=True)
                with claimed(
                    self.directory / f".pull-{bank_id}.claim", final.is_dir, self.times, self._waiting
                ) as mine:
                    if mine:
                        self._download(found or self._find(), final)
        finally:
            for path in missing:
                remove_if_empty(path)
        return bank_id

    def _waiting(self) -> None:
        self.progress.note(f"another process downloads {self.address.url}; waiting for it")

    def _download(self, found: FoundBank, final: Path) -> None:
        files = found.manifest.files
        left = sorted(path for path in self.directory.glob(f".pull-{final.name}-*") if path.is_dir())
        self._check_space(remaining_bytes(files, left))
        staged = self.directory / f".pull-{final.name}-{uuid.uuid4().hex[:12]}"
        staged.mkdir()
        total = sum(digest.size for digest in files.values())
        try:
            with self.progress.step(f"download {self.address.name}@{final.name}", total, "bytes") as step:
                advance = _locked(step.advance)
                Download(self.origin, found, staged, left, self.patience, advance).run()
            _publish(staged, found, final, self.lock)
        except (CorruptBankError, ReplacedError, OSError):
            # Of a wrong file, nothing is worth keeping; a full disk needs the space.
            _remove(staged, *left)
            raise
        except BaseException:
            for directory in left:
                remove_if_empty(directory)
            raise
        _remove(*left, *self._forgotten())

    def _forgotten(self) -> list[Path]:
        """What interrupted downloads of other banks left long ago."""
        return [path for path in self.directory.glob(".pull-*-*") if path.is_dir() and _age(path) > _FORGOTTEN_S]

    def _check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self.directory).free
        if needed + _SPARE_BYTES > free:
            raise StorageError(
                f"{self.address.url} needs {needed / 1e9:,.2f} GB, but {self.directory} has {free / 1e9:,.2f} GB free",
                "free some space, or use another disk: $COSTBANK_CACHE for `open_bank`, --store for `costbank pull`",
            )


def _remove(*directories: Path) -> None:
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


def _age(directory: Path) -> float:
    """Seconds since a file in a directory changed."""
    try:
        return time.time() - max(path.stat().st_mtime for path in (directory, *directory.iterdir()))
    except OSError:  # another process is removing it
        return 0.0


def _publish(staged: Path, found: FoundBank, final: Path, lock: Lock) -> None:
    """Give a complete copy its name, unless another process has just done so."""
    with (staged / MANIFEST).open("xb") as file:
        file.write(found.data)
        file.flush()
        os.fsync(file.fileno())
    Bank(staged)  # refuses tensors of other shapes than in the manifest
    fsync_directory(staged)
    with lock(final.parent):
        try:
            staged.rename(final)
        except OSError:
            if not final.is_dir():
                raise
            _remove(staged)
        fsync_directory(final.parent)
        write_atomically(final.parent / LATEST, f"{final.name}\n".encode())


def _locked(advance: Callable[[int], None]) -> Callable[[int], None]:
    lock = threading.Lock()

    def locked(amount: int) -> None:
        with lock:
            advance(amount)

    return locked
