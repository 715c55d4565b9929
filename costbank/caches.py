"""What costbank has cached on this machine, by kind, and how to clear it. Everything in a cache can be made again.

To add a kind of cache, add a line to `KINDS`.
"""

import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from costbank.bank.layout import ID_PATTERN
from costbank.errors import StorageError, UsageError
from costbank.files import is_abandoned, locked, storage_errors, tree_bytes
from costbank.settings import default_cache
from costbank.suggestions import closest

__all__ = ["KINDS", "CacheKind", "CachedEntry", "KindContents", "cache_contents", "clear_cache"]

_REMOVED_PREFIX = ".removed-"
_WORK_SUFFIX = ".work"


@dataclass(frozen=True)
class CacheKind:
    """A kind of cached data.

    Attributes:
        name: what the command line calls it.
        meaning: what it contains, and what uses it.
        entries: finds the files and directories in the kind's directory that can be removed, each on its own.
        directory: finds the kind's directory; its argument is the cache directory that the caller gave, or None. Builds
            hold a shared lock of theirs; users of `banks` hold none.
    """

    name: str
    meaning: str
    entries: Callable[[Path], Iterable[Path]]
    directory: Callable[[Path | None], Path] = lambda cache: cache or default_cache()


def _unfinished(cache: Path) -> Iterator[Path]:
    """Work of processes that are gone; that of running processes is locked."""
    work = (
        *cache.glob("staging/.staging-*"),
        *cache.glob(f"pairs/*{_WORK_SUFFIX}"),
        *cache.glob(f"{_REMOVED_PREFIX}*"),
    )
    return (path for path in work if is_abandoned(path))


def _downloaded(banks: Path) -> Iterator[Path]:
    """Banks, and what a killed process had begun to remove."""
    yield from (path for path in banks.glob("*/*") if re.fullmatch(ID_PATTERN, path.name))
    yield from (path for path in banks.glob(f"{_REMOVED_PREFIX}*") if is_abandoned(path))


def _bank_directory(cache: Path | None) -> Path:
    from costbank.remote import bank_cache

    return bank_cache() if cache is None else cache / "banks"


KINDS: tuple[CacheKind, ...] = (
    CacheKind("encoded-text", "token ids of corpus files", lambda cache: cache.glob("text/*/*")),
    CacheKind(
        "pair-counts",
        "counted pairs of tokens, for the source cooccurrence",
        lambda cache: (path for path in cache.glob("pairs/*") if path.suffix != _WORK_SUFFIX),
    ),
    CacheKind("file-digests", "SHA-256 of corpus files", lambda cache: cache.glob("digests/*/*.json")),
    CacheKind("banks", "banks that were opened by URL", _downloaded, _bank_directory),
    CacheKind("unfinished", "work of interrupted builds, which the same build would continue", _unfinished),
)


@dataclass(frozen=True)
class CachedEntry:
    """A file or directory in a cache; `used` is the last time when one of its files was read or written."""

    path: Path
    bytes: int
    used: datetime


@dataclass(frozen=True)
class KindContents:
    """The entries of one kind in a cache directory."""

    kind: CacheKind
    directory: Path
    entries: tuple[CachedEntry, ...]

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.entries)

    @property
    def last_used(self) -> datetime | None:
        """The time of the last use of any entry; None if there are none."""
        return max((entry.used for entry in self.entries), default=None)


def cache_contents(cache: str | Path | None = None, kinds: Sequence[str] = ()) -> list[KindContents]:
    """What is cached.

    Args:
        cache: the directory of encoded text and what is next to it; by default `$COSTBANK_CACHE`, else the platform's
            cache directory.
        kinds: names of kinds; by default all.

    Raises:
        UsageError: a kind is unknown, or `cache` is a file.
    """
    contents = []
    for kind in _kinds_named(kinds):
        directory = kind.directory(Path(cache) if cache else None)
        if directory.exists() and not directory.is_dir():
            raise UsageError(f"{directory} is a file, not a cache", "give a directory as --cache")
        found = (_entry(path) for path in sorted(kind.entries(directory)))
        contents.append(KindContents(kind, directory, tuple(entry for entry in found if entry)))
    return contents


def clear_cache(
    cache: str | Path | None = None, kinds: Sequence[str] = (), *, older_than: float = 0, dry_run: bool = False
) -> list[KindContents]:
    """Remove cached entries, and return those that were removed.

    Entries are first moved out of sight, so a kill leaves no entry that is incomplete; the next call deletes the rest.

    Args:
        cache, kinds: as in `cache_contents`.
        older_than: keep entries that were used within this many days.
        dry_run: remove nothing.

    Raises:
        UsageError: a kind is unknown, `older_than` is negative, or a running build uses the cache.
        StorageError: the cache cannot be written.
    """
    if not older_than >= 0:
        raise UsageError(f"cannot remove entries that are older than {older_than} days", "give 0 or more days")
    before = datetime.now(UTC) - timedelta(days=older_than)
    cleared = []
    for contents in cache_contents(cache, kinds):
        old = tuple(entry for entry in contents.entries if entry.used <= before)
        if old and not dry_run:
            _remove(contents.directory, old)
        cleared.append(KindContents(contents.kind, contents.directory, old))
    return cleared


def _kinds_named(names: Sequence[str]) -> list[CacheKind]:
    by_name = {kind.name: kind for kind in KINDS}
    for name in names:
        if name not in by_name:
            suggestion = closest(name, by_name)
            raise UsageError(
                f"there is no cache of the kind {name!r}",
                (f"did you mean {suggestion}? " if suggestion else "") + f"the kinds are: {', '.join(by_name)}",
            )
    return [kind for kind in KINDS if not names or kind.name in names]


def _entry(path: Path) -> CachedEntry | None:
    """An entry; None if another process has just removed it."""
    try:
        times = [path.lstat().st_mtime]
        for stat in (file.lstat() for file in (path, *path.rglob("*")) if file.is_file()):
            times += [stat.st_mtime, stat.st_atime]  # the access time of a directory only shows that it was listed
        return CachedEntry(path, tree_bytes(path), datetime.fromtimestamp(max(times), UTC))
    except FileNotFoundError:
        return None


def _remove(cache: Path, entries: Sequence[CachedEntry]) -> None:
    with storage_errors(cache):
        removed = cache / f"{_REMOVED_PREFIX}{secrets.token_hex(8)}"
        try:
            with locked(cache, wait=False):
                removed.mkdir()
                for number, entry in enumerate(entries):
                    if entry.path.exists():
                        entry.path.rename(removed / str(number))
        except BlockingIOError:
            raise UsageError(
                f"a running build uses the cache {cache}", "clear it when the build has finished"
            ) from None
        shutil.rmtree(removed, ignore_errors=True)
    if removed.exists():
        raise StorageError(
            f"{removed} cannot be deleted completely", "check its permissions, then run the command again"
        )
