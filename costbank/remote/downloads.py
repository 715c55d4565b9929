"""Copy the files of a bank from its origin into a directory, in parallel.

What an interrupted process has left is continued. It is copied first, because that process may be alive after all, for
example on a machine that was suspended, and still write into its own files.
"""

import hashlib
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from costbank.errors import CorruptBankError
from costbank.files import FileDigest
from costbank.remote.origins import BLOCK_BYTES, DAMAGED, FoundBank, Origin
from costbank.remote.retries import Patience, Retries, TransientError

__all__ = ["Download", "StoppedError", "remaining_bytes"]

_THREADS = 4
_PROGRESS_BYTES = 1 << 20
_SYNC_BYTES = 64 << 20
_MOST_UNHASHED = 8


class StoppedError(Exception):
    """The work of this thread is not needed any more; internal to this package."""


def remaining_bytes(files: dict[str, FileDigest], left: Sequence[Path]) -> int:
    """The number of bytes to download, given the directories that interrupted downloads left."""
    return sum(digest.size - min(digest.size, _most(name, left)[1]) for name, digest in files.items())


def _most(name: str, left: Sequence[Path]) -> tuple[Path | None, int]:
    """Of the copies of a file in some directories, the longest one and its size."""
    best: tuple[Path | None, int] = (None, 0)
    for directory in left:
        try:
            size = (directory / name).stat().st_size
        except OSError:
            continue
        if size > best[1]:
            best = (directory / name, size)
    return best


@dataclass(frozen=True)
class Download:
    """A download of one bank.

    Attributes:
        origin, bank: from where.
        directory: to where; it is empty.
        left: directories with files of interrupted downloads of this bank.
        patience: how long to go on after errors that pass.
        advance: called by several threads with numbers of bytes that were received or found.
    """

    origin: Origin
    bank: FoundBank
    directory: Path
    left: Sequence[Path]
    patience: Patience
    advance: Callable[[int], None]

    def run(self) -> None:
        """Copy every file that the manifest lists, and check and sync each.

        Raises:
            CorruptBankError: a file has another size or sha256 than in the manifest.
            ReplacedError: a file is gone at the origin.
            UnreachableError, RemoteError: see `Origin` and `Retries`.
            OSError: a file cannot be written.
        """
        # The largest file determines the time, so it goes first.
        names = sorted(self.bank.manifest.files, key=lambda name: -self.bank.manifest.files[name].size)
        waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
        for name in names:
            waiting.put(name)
        results: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        stopped = threading.Event()

        def work() -> None:
            while not stopped.is_set():
                try:
                    name = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    self._copy(name, stopped)
                    results.put(None)
                except BaseException as error:
                    results.put(error)
                    return

        # The threads are not joined: one may wait for a server, and Ctrl-C must not.
        for _ in range(min(_THREADS, len(names))):
            threading.Thread(target=work, name="costbank-download", daemon=True).start()
        try:
            for _ in names:
                if (error := results.get()) is not None:
                    raise error
        finally:
            stopped.set()

    def _copy(self, name: str, stopped: threading.Event) -> None:
        digest, path = self.bank.manifest.files[name], self.directory / name
        with path.open("xb", buffering=0) as file, _Copy(name, digest, file, self.advance, stopped) as copy:
            copy.take_over(_most(name, self.left)[0])
            continued = copy.size > 0
            self._fetch(copy)
            if continued and copy.digest_so_far() != digest.sha256:  # a crash may have lost what was not synced
                copy.start_over()
                self._fetch(copy)
            copy.sync()
            if (sha256 := copy.digest_so_far()) != digest.sha256:
                raise CorruptBankError(
                    f"{self.bank.place}: {name} has the sha256 {sha256[:12]}… instead of {digest.sha256[:12]}…", DAMAGED
                )

    def _fetch(self, copy: "_Copy") -> None:
        """Receive the rest of a file."""
        retries, since_failure = Retries(self.patience, copy.name), 0
        while copy.size < copy.digest.size:
            try:
                for block in self.origin.blocks(self.bank, copy.name, copy.digest, copy.size):
                    copy.append(block)
                    since_failure += len(block)
                    if since_failure >= _PROGRESS_BYTES:
                        retries.progressed()
                if copy.size < copy.digest.size:
                    raise TransientError(f"the body ended after {copy.size:,} of {copy.digest.size:,} bytes")
            except TransientError as error:
                since_failure = 0
                retries.failed(error)


class _Copy:
    """A file that grows, and the digest of its bytes so far, which another thread computes during the download."""

    def __init__(
        self, name: str, digest: FileDigest, file: Any, advance: Callable[[int], None], stopped: threading.Event
    ) -> None:
        self.name, self.digest = name, digest
        self._file, self._advance, self._stopped = file, advance, stopped
        self._hash, self.size = hashlib.sha256(), 0
        self._hasher = ThreadPoolExecutor(1, "costbank-sha256")
        self._hashing: deque[Future[None]] = deque()
        self._syncer = ThreadPoolExecutor(1, "costbank-sync")
        self._syncing: deque[Future[None]] = deque()
        self._unsynced = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._hasher.shutdown(wait=False, cancel_futures=True)
        self._syncer.shutdown(cancel_futures=True)

    def digest_so_far(self) -> str:
        while self._hashing:
            self._hashing.popleft().result()
        return self._hash.hexdigest()

    def take_over(self, other: Path | None) -> None:
        """Begin with the bytes of another file, at most as many as this one will have."""
        if other is None:
            return
        with other.open("rb") as handle:
            while block := handle.read(min(BLOCK_BYTES, self.digest.size - self.size)):
                self.append(block)
        other.unlink(missing_ok=True)

    def append(self, block: bytes) -> None:
        """Add bytes.

        Raises:
            CorruptBankError: there are more than the file has.
            StoppedError: the download was stopped.
        """
        if self._stopped.is_set():
            raise StoppedError
        if self.size + len(block) > self.digest.size:
            raise CorruptBankError(f"{self.name} has more than {self.digest.size:,} bytes", DAMAGED)
        view = memoryview(block)
        while view:  # without a buffer, a write may be partial
            view = view[self._file.write(view) :]
        self._hashing.append(self._hasher.submit(self._hash.update, block))
        if len(self._hashing) > _MOST_UNHASHED:
            self._hashing.popleft().result()
        self.size += len(block)
        self._unsynced += len(block)
        if self._unsynced >= _SYNC_BYTES and (not self._syncing or self._syncing[0].done()):
            self._finish_syncing()  # it is done: this raises its error
            self._unsynced = 0
            self._syncing.append(self._syncer.submit(os.fdatasync, self._file.fileno()))
        self._advance(len(block))

    def sync(self) -> None:
        """Wait until all bytes are on the disk; most are by then, because another thread syncs during the download.

        Raises:
            OSError: a write failed, at any time.
        """
        self._finish_syncing()
        os.fsync(self._file.fileno())

    def _finish_syncing(self) -> None:
        while self._syncing:
            self._syncing.popleft().result()

    def start_over(self) -> None:
        self._advance(-self.size)
        self._file.seek(0)
        self._file.truncate()
        self.digest_so_far()
        self._hash, self.size = hashlib.sha256(), 0
