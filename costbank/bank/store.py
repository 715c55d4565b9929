"""A directory of banks: `<store>/<name>/<id>/`, and `<store>/<name>/latest` with one of the ids."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_data_path

from costbank.bank.layout import ID_DIGITS, ID_PATTERN, LATEST, MANIFEST
from costbank.errors import BankNotFoundError, CorruptBankError, UsageError
from costbank.suggestions import closest

__all__ = ["NAME_PATTERN", "Store", "StoredBank", "default_store"]

NAME_PATTERN = r"[a-z0-9][a-z0-9._-]{0,63}"

_MOST_NAMES = 20
_READINGS = 10
_NAME = re.compile(NAME_PATTERN)
_ID = re.compile(ID_PATTERN)
_PREFIX = rf"@([0-9a-f]{{4,{ID_DIGITS}}})"
_REFERENCE = re.compile(rf"({NAME_PATTERN})(?:{_PREFIX})?")
_REFERENCE_WITH_PREFIX = re.compile(rf"{NAME_PATTERN}{_PREFIX}")


def default_store() -> Path:
    """`$COSTBANK_STORE`, else the platform's data directory."""
    return Path(os.environ.get("COSTBANK_STORE") or user_data_path("costbank") / "banks")


@dataclass(frozen=True)
class StoredBank:
    """A bank in a store: its name, id and directory, and whether it is the latest of its name."""

    name: str
    id: str
    path: Path
    latest: bool


class Store:
    """A directory of banks, which need not exist. This class only reads it."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = default_store() if root is None else root

    def check(self) -> None:
        """Raise UsageError if the store is a file. The directory need not exist yet."""
        if self.root.exists() and not self.root.is_dir():
            raise UsageError(f"{self.root} is a file, not a store", "give a directory of banks as --store")

    def banks(self) -> Iterator[StoredBank]:
        """Every complete bank, in the order of names and ids."""
        for directory in self.directories():
            yield from self.banks_of(directory.name)

    def directories(self) -> list[Path]:
        """The directories of all names, sorted; one may contain no bank, only what a killed process left in it."""
        return [path for path in _listed(self.root, _NAME) if path.is_dir()]

    def banks_of(self, name: str) -> list[StoredBank]:
        """The complete banks of a name, in the order of their ids."""
        directory = self.root / name
        ids, latest = _state(directory)
        return [StoredBank(name, bank_id, directory / bank_id, bank_id == latest) for bank_id in ids]

    def check_name(self, name: str) -> None:
        """Check that a name has banks.

        Raises:
            UsageError: it is not a name, but perhaps a `name@id` or a path.
            BankNotFoundError: it has no banks; the hint lists the names that have.
        """
        if not re.fullmatch(NAME_PATTERN, name):
            raise UsageError(f"{name!r} is not the name of banks", "give a name alone, without an id or a path")
        if not _state(self.root / name)[0]:
            raise self._not_found(name)

    def resolve(self, reference: str) -> Path:
        """The directory of the bank that `name`, `name@idprefix` or a path refers to.

        Raises:
            UsageError: the reference is malformed or a URL, or several ids have its prefix.
            BankNotFoundError: no bank matches it; the hint lists the banks that exist.
            CorruptBankError: the file `latest` of the name is damaged.
        """
        if "://" in reference:
            raise UsageError(
                f"{reference} is a URL, not a bank on this machine", f"`costbank pull {reference}` copies it"
            )
        if "/" in reference or reference in (".", ".."):
            return self._by_path(Path(reference))
        return self.resolve_name(reference)

    def resolve_name(self, reference: str) -> Path:
        """`resolve` for `name` and `name@idprefix` only: never a path, even if the path exists."""
        match = _REFERENCE.fullmatch(reference)
        if not match:
            suggestion = self._suggestion(reference)
            name, at, prefix = reference.partition("@")
            if at and re.fullmatch(NAME_PATTERN, name) and not _REFERENCE_WITH_PREFIX.fullmatch(suggestion or ""):
                raise UsageError(
                    f"{reference!r}: {prefix!r} is not 4 to {ID_DIGITS} hexadecimal digits (the prefix of an id)",
                    f"{name} has: {', '.join(ids)}" if (ids := _ids(self.root / name)) else "`costbank list` lists ids",
                )
            raise UsageError(
                f"{reference!r} is not a bank name",
                f"did you mean {suggestion}?"
                if suggestion
                else "give a name, name@idprefix (4 digits or more), or a path",
            )
        name, prefix = match.groups()
        directory = self.root / name
        ids, latest = _state(directory)
        if not ids:
            raise self._not_found(reference)
        if prefix is None:
            return _latest_of(directory, ids, latest)
        matches = [bank_id for bank_id in ids if bank_id.startswith(prefix)]
        if not matches:
            raise BankNotFoundError(f"there is no bank {reference}", f"{name} has: {', '.join(ids)}")
        if len(matches) > 1:
            raise UsageError(f"{reference} matches several banks", f"give more digits: {', '.join(matches)}")
        return directory / matches[0]

    def _by_path(self, path: Path) -> Path:
        if (path / MANIFEST).is_file() or (_ID.fullmatch(path.name) and path.is_dir()):
            return path
        ids, latest = _state(path)
        if ids:
            return _latest_of(path, ids, latest)
        raise BankNotFoundError(f"there is no bank at {path}", "give a directory that contains manifest.json")

    def _not_found(self, reference: str) -> BankNotFoundError:
        names = self._names()
        if not names:
            hint = "`costbank build` makes a bank; `costbank demo` shows how"
        else:
            more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
            hint = f"the banks are: {', '.join(names[:_MOST_NAMES])}{more}"
            if suggestion := self._suggestion(reference):
                hint = f"did you mean {suggestion}? {hint}"
        return BankNotFoundError(f"there is no bank {reference} in {self.root}", hint)

    def _suggestion(self, reference: str) -> str | None:
        """The existing bank that a reference without a match most likely meant; None if no name is similar."""
        name, _, prefix = reference.partition("@")
        suggestion = closest(name, self._names())
        if suggestion is None or not prefix:
            return suggestion
        prefix = prefix.lower()
        has_prefix = any(bank_id.startswith(prefix) for bank_id in _ids(self.root / suggestion))
        return f"{suggestion}@{prefix}" if has_prefix else suggestion

    def _names(self) -> list[str]:
        """The names of all banks, sorted, each once."""
        return list(dict.fromkeys(bank.name for bank in self.banks()))


def _state(directory: Path) -> tuple[list[str], str | None]:
    """The ids of a name's banks, sorted, and the content of its file `latest`, at one moment.

    Writers replace banks while this reads without a lock, so it reads until `latest` names a listed bank, or two
    readings are equal.
    """
    before, state = None, (_ids(directory), _latest(directory))
    for _ in range(_READINGS):
        if state == before or state[1] in state[0]:
            break
        before, state = state, (_ids(directory), _latest(directory))
    return state


def _ids(directory: Path) -> list[str]:
    return [path.name for path in _listed(directory, _ID) if path.is_dir()]


def _listed(directory: Path, pattern: re.Pattern[str]) -> list[Path]:
    """The paths in a directory whose names match, sorted; none if it does not exist."""
    if not directory.is_dir():
        return []
    try:
        return sorted(path for path in directory.iterdir() if pattern.fullmatch(path.name))
    except (FileNotFoundError, NotADirectoryError):  # removed since then
        return []


def _latest_of(directory: Path, ids: list[str], latest: str | None) -> Path:
    """The directory of the bank that a name alone means, of these ids."""
    if latest is None and len(ids) == 1:  # the writer was killed before its last step
        return directory / ids[0]
    if latest in ids:
        return directory / latest
    problem = "is missing" if latest is None else f"names {latest!r}, which is not a bank in {directory}"
    raise CorruptBankError(
        f"{directory / LATEST} {problem}",
        f"give a full reference ({', '.join(f'{directory.name}@{i}' for i in ids)}), or build or copy it again",
    )


def _latest(directory: Path) -> str | None:
    """Read the id from the file `latest`. Returns None if the file does not exist, and "" if it cannot be read."""
    try:
        return (directory / LATEST).read_bytes().decode("utf-8", "replace").removesuffix("\n")
    except (FileNotFoundError, ValueError):  # ValueError: a path with a null byte
        return None
    except OSError:
        return ""
