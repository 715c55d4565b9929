"""Remove banks from a store, rename a name, and clear what killed processes left behind.

A bank is renamed to a name that readers ignore before its files are deleted, and `latest` moves away from it before
that. So a process that dies at any moment leaves complete banks under their ids; the next removal in the same directory
deletes the rest. Whoever changes the names in a directory `<store>/<name>` holds the lock of that directory: writers
that publish a bank, and the functions of this module.
"""

import errno
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from costbank.bank.history import newest_first
from costbank.bank.layout import LATEST, REMOVED_PREFIX
from costbank.bank.store import NAME_PATTERN, Store, StoredBank
from costbank.errors import BankNotFoundError, StorageError, UsageError
from costbank.files import (
    STAGING_PREFIX,
    fsync_directory,
    is_abandoned,
    locked,
    remove_if_empty,
    storage_errors,
    tree_bytes,
    write_atomically,
)
from costbank.plurals import counted

__all__ = ["STEPS", "Leftover", "Removal", "RemovedBank", "prune_banks", "remove_banks", "rename_banks"]

STEPS = ("latest moved", "renamed", "directory synced", "latest removed", "deleted")
"""The steps of a removal from one name; a process may die after any of them. `renamed` comes once for each bank."""

OnStep = Callable[[str], None]
Select = Callable[[Sequence[StoredBank]], set[str]]
"""Chooses the ids to remove from all banks of a name."""

_NAME_IN_USE = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)


@dataclass(frozen=True)
class RemovedBank:
    """A bank that was removed, or would be; `bytes` is the size of its files."""

    name: str
    id: str
    bytes: int


@dataclass(frozen=True)
class Leftover:
    """What a killed process left in the store: an unfinished bank, or a bank that was not deleted completely."""

    path: Path
    bytes: int


@dataclass(frozen=True)
class Removal:
    """What was removed, or would be with `dry_run`.

    Attributes:
        banks: the banks.
        leftovers: what killed processes had left.
        latest: for each name whose latest bank was removed, the id that its name means now; None without a bank.
        undated: the banks that `prune_banks` kept only because their manifests are damaged.
    """

    banks: tuple[RemovedBank, ...] = ()
    leftovers: tuple[Leftover, ...] = ()
    latest: dict[str, str | None] = field(default_factory=dict)
    undated: tuple[StoredBank, ...] = ()

    @property
    def bytes(self) -> int:
        """The size of everything that was removed."""
        return sum(one.bytes for one in (*self.banks, *self.leftovers))

    def __add__(self, other: "Removal") -> "Removal":
        return Removal(
            self.banks + other.banks,
            self.leftovers + other.leftovers,
            self.latest | other.latest,
            self.undated + other.undated,
        )


def remove_banks(
    references: Iterable[str], store: str | Path | None = None, *, every: bool = False, dry_run: bool = False,
    on_step: OnStep | None = None,
) -> Removal:  # fmt: skip
    """Remove banks, and what killed processes left under the same names.

    A process that has opened a bank keeps what it has mapped. Nothing is removed if one reference is refused.

    Args:
        references: `name@idprefix`, or the name of a single bank.
        store: the directory of banks; by default `$COSTBANK_STORE`, else the platform's data directory.
        every: the references are names, and all banks of each are removed.
        dry_run: remove nothing, and return what would be removed.
        on_step: called with each of `STEPS` when it is done.

    Raises:
        UsageError: a reference is malformed or a path, or it is a name with several banks and `every` is false.
        BankNotFoundError: a reference matches no bank.
        StorageError: the store cannot be written.
    """
    opened = _opened(store)
    chosen: dict[str, set[str]] = {}
    for reference in references:
        for bank in _banks_meant(opened, reference, every):
            chosen.setdefault(bank.name, set()).add(bank.id)
    removal = Removal()
    for name, ids in chosen.items():
        removal += _remove_from(opened, name, lambda _, ids=ids: ids, dry_run, on_step)
    return removal


def prune_banks(
    keep: int, name: str | None = None, store: str | Path | None = None, *, dry_run: bool = False,
    on_step: OnStep | None = None,
) -> Removal:  # fmt: skip
    """Remove all but the newest banks of each name, and what killed processes left.

    The bank that a name means is always kept, and so is one whose manifest is damaged, because its age is unknown.

    Args:
        keep: how many banks of each name to keep, by the time in their manifests.
        name: the only name to prune; None for all.
        store, dry_run, on_step: as in `remove_banks`.

    Raises:
        UsageError: `keep` is less than 1, or `name` is not a name.
        BankNotFoundError: the name has no banks.
        StorageError: the store cannot be written.
    """
    opened = _opened(store)
    if keep < 1:
        raise UsageError(f"cannot keep {keep} banks", "keep at least 1; `costbank rm --all NAME` removes a whole name")
    if name is not None:
        opened.check_name(name)
    undated: list[StoredBank] = []

    def outdated(banks: Sequence[StoredBank]) -> set[str]:
        dated = [one.bank for one in newest_first(banks)]
        known = {bank.id for bank in dated}
        undated.extend(bank for bank in banks if bank.id not in known)
        return {bank.id for bank in dated[keep:] if not bank.latest}

    removal = Removal()
    for directory in opened.directories() if name is None else [opened.root / name]:
        removal += _remove_from(opened, directory.name, outdated, dry_run, on_step)
    return removal + Removal(undated=tuple(undated))


def rename_banks(old: str, new: str, store: str | Path | None = None, *, dry_run: bool = False) -> Removal:
    """Rename a name with all its banks, whose ids and files stay the same. Nothing is ever overwritten.

    Args:
        old: the name.
        new: a name that nothing has.
        store: the directory of banks; by default `$COSTBANK_STORE`, else the platform's data directory.
        dry_run: check whether it is possible, and rename nothing.

    Returns:
        What killed processes had left under both names, which is removed.

    Raises:
        UsageError: a name is malformed, `new` is in use, or another process is writing a bank under `old`.
        BankNotFoundError: no bank has the name `old`.
        StorageError: the store cannot be written.
    """
    opened = _opened(store)
    if not re.fullmatch(NAME_PATTERN, new):
        raise UsageError(
            f"{new!r} is not a name for banks",
            "use at most 64 lower-case letters, digits, '.', '_' and '-', beginning with a letter or digit",
        )
    opened.check_name(old)
    in_use = UsageError(f"the name {new} is in use in {opened.root}", "choose a name that nothing has")
    source, target = opened.root / old, opened.root / new
    if opened.banks_of(new):
        raise in_use
    removal = _remove_from(opened, old, _nothing, dry_run)
    if target.is_dir():
        removal += _remove_from(opened, new, _nothing, dry_run)
    leftovers = {one.path for one in removal.leftovers}
    with ExitStack() as lock, storage_errors(opened.root):
        if not dry_run:
            try:
                lock.enter_context(locked(source))
            except FileNotFoundError:
                raise BankNotFoundError(f"{old} was removed or renamed just now", "see `costbank list`") from None
        if set(source.glob(f"{STAGING_PREFIX}*")) - leftovers:
            raise UsageError(f"another process is writing a bank named {old}", "rename it when the build has finished")
        if dry_run:
            if target.exists() and (not target.is_dir() or set(target.iterdir()) - leftovers):
                raise in_use
            return removal
        try:
            source.rename(target)  # replaces an empty directory, and nothing else
        except OSError as error:
            if error.errno in _NAME_IN_USE:
                raise in_use from None
            raise
        fsync_directory(opened.root)
    return removal


def _opened(store: str | Path | None) -> Store:
    opened = Store(Path(store) if store else None)
    opened.check()
    return opened


def _banks_meant(store: Store, reference: str, every: bool) -> list[StoredBank]:
    """The banks that a reference means: one, or with `every` all of a name."""
    if "/" in reference or reference in (".", ".."):
        raise UsageError(
            f"{reference!r} is a path, which could mean any directory", "give name@id, and the store with --store"
        )
    if every:
        store.check_name(reference)
        return store.banks_of(reference)
    name, at, _ = reference.partition("@")
    banks = store.banks_of(name) if re.fullmatch(NAME_PATTERN, name) else []
    if not at and len(banks) > 1:
        listed = ", ".join(f"{name}@{bank.id}{' (latest)' if bank.latest else ''}" for bank in banks)
        raise UsageError(
            f"{name} has {counted(len(banks), 'bank')}: {listed}", "give name@id of one, or --all to remove all of them"
        )
    found = banks[0].path if banks and not at else store.resolve_name(reference)
    return [bank for bank in banks if bank.path == found]


def _nothing(_banks: Sequence[StoredBank]) -> set[str]:
    return set()


def _remove_from(store: Store, name: str, select: Select, dry_run: bool, on_step: OnStep | None = None) -> Removal:
    """Remove the selected banks of a name, and what killed processes left in its directory."""
    directory, on_step = store.root / name, on_step or (lambda _: None)
    with storage_errors(directory):
        if dry_run:
            return _plan(store, name, select)[0]
        with ExitStack() as lock:
            try:
                lock.enter_context(locked(directory))
            except FileNotFoundError:  # it does not exist, or another process has just removed or renamed it
                return Removal()
            removal, banks = _plan(store, name, select)
            if banks:
                _move_latest(directory, removal.latest.get(name), on_step)
            doomed = list(_set_aside(directory, banks, removal.leftovers, on_step))
            fsync_directory(directory)
            on_step("directory synced")
            if not store.banks_of(name):
                (directory / LATEST).unlink(missing_ok=True)
            on_step("latest removed")
        for path in doomed:
            _delete(path)
        on_step("deleted")
        remove_if_empty(directory)
    return removal


def _plan(store: Store, name: str, select: Select) -> tuple[Removal, list[StoredBank]]:
    """What is to be removed under a name, and its banks in the order of their removal."""
    directory, banks = store.root / name, store.banks_of(name)
    ids = select(banks)
    chosen = sorted((bank for bank in banks if bank.id in ids), key=lambda bank: bank.latest)
    kept = [bank for bank in banks if bank.id not in ids]
    latest: dict[str, str | None] = {}
    if chosen and not any(bank.latest for bank in kept):
        dated = newest_first(kept)
        latest[name] = dated[0].bank.id if dated else kept[0].id if kept else None
    removed = tuple(RemovedBank(bank.name, bank.id, tree_bytes(bank.path)) for bank in chosen)
    return Removal(removed, tuple(_leftovers(directory, bool(banks))), latest), chosen


def _leftovers(directory: Path, has_banks: bool) -> Iterator[Leftover]:
    """What killed processes left in the directory of a name."""
    paths = [*directory.glob(f"{REMOVED_PREFIX}*"), *directory.glob(f".{LATEST}.*")]
    paths += [staged for staged in directory.glob(f"{STAGING_PREFIX}*") if is_abandoned(staged)]
    if not has_banks and (directory / LATEST).is_file():
        paths.append(directory / LATEST)
    yield from (Leftover(path, tree_bytes(path)) for path in sorted(paths))


def _move_latest(directory: Path, latest: str | None, on_step: OnStep) -> None:
    if latest is not None:
        write_atomically(directory / LATEST, f"{latest}\n".encode())
    on_step("latest moved")


def _set_aside(
    directory: Path, banks: Iterable[StoredBank], leftovers: Iterable[Leftover], on_step: OnStep
) -> Iterator[Path]:
    """Rename banks, the latest one last, and unfinished ones to names that readers ignore; yields all to delete."""
    for bank in banks:
        yield bank.path.rename(directory / f"{REMOVED_PREFIX}{bank.id}-{secrets.token_hex(4)}")
        on_step("renamed")
    for leftover in leftovers:
        if leftover.path.name.startswith(STAGING_PREFIX):
            yield leftover.path.rename(directory / f"{REMOVED_PREFIX}{leftover.path.name[1:]}-{secrets.token_hex(4)}")
        elif leftover.path.name != LATEST:
            yield leftover.path


def _delete(path: Path) -> None:
    """Delete a file or a directory, which another process may be deleting at the same time."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
        return
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        raise StorageError(f"{path} cannot be deleted completely", "check its permissions, then run the command again")
