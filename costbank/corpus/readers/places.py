"""Where files are: on this machine or behind a URL, asked the same questions."""

import glob
import os
import re
from pathlib import Path
from typing import Protocol

from costbank.corpus.readers.remote import is_url, remote_errors, remote_filesystem
from costbank.errors import InputError, InputNotFoundError
from costbank.files import check_readable

__all__ = ["Place", "file_name", "has_wildcards", "place_of"]

_WILDCARDS = re.compile(r"[*?\[]")


class Place(Protocol):
    """The answers are locations, sorted by their parts, so a corpus is the same wherever a listing comes from."""

    def exists(self, location: str) -> bool: ...

    def is_folder(self, location: str) -> bool: ...

    def check(self, location: str) -> None:
        """Raise an `InputNotFoundError` or an `InputError` unless it is a file that can be read and holds something."""
        ...

    def files_within(self, folder: str) -> list[str]:
        """All files in a folder and in the folders within, except hidden ones."""
        ...

    def matches(self, pattern: str) -> list[str]:
        """What a pattern of `*`, `?`, `[…]` and `**` stands for, folders too."""
        ...

    def size(self, location: str) -> int | None:
        """Bytes; None where a server does not say."""
        ...

    def identity(self, location: str) -> str:
        """The same for all names of one file."""
        ...


def place_of(location: str) -> Place:
    """The place of a path or a URL.

    Raises:
        MissingExtraError: a library for this kind of URL is not installed.
        UsageError: nothing is known of this kind of URL.
    """
    return _Remote(location) if is_url(location) else _Local()


def has_wildcards(location: str) -> bool:
    return _WILDCARDS.search(location) is not None


def file_name(location: str) -> str:
    """The last part of a path, or of a URL without its query."""
    name = location.rpartition("/")[2]
    return name.partition("?")[0] if location.startswith(("http://", "https://")) else name


class _Local:
    def exists(self, location: str) -> bool:
        return os.path.lexists(location)

    def is_folder(self, location: str) -> bool:
        return Path(location).is_dir()

    def check(self, location: str) -> None:
        check_readable(Path(location), "corpus file")

    def files_within(self, folder: str) -> list[str]:
        found: list[str] = []
        self._walk(folder, found, frozenset())
        return sorted(found, key=_by_parts)

    def _walk(self, folder: str, found: list[str], above: frozenset[str]) -> None:
        # Links to folders are followed, but not into a folder that the walk is within.
        real = os.path.realpath(folder)
        if real in above:
            return
        try:
            entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
        except OSError as error:
            raise InputError(f"the folder {folder} cannot be read: {error.strerror}", f"chmod +rx {folder}") from error
        for entry in entries:
            if entry.is_dir():
                self._walk(entry.path, found, above | {real})
            elif entry.is_file():
                found.append(entry.path)

    def matches(self, pattern: str) -> list[str]:
        return sorted(glob.glob(pattern, recursive=True), key=_by_parts)  # noqa: PTH207 - keeps paths as they are typed

    def size(self, location: str) -> int | None:
        return Path(location).stat().st_size

    def identity(self, location: str) -> str:
        return os.path.realpath(location)


class _Remote:
    def __init__(self, url: str) -> None:
        self._filesystem, _ = remote_filesystem(url)
        # A web page is a file, although links in it make fsspec take it for a folder.
        self._is_web = url.startswith(("http://", "https://"))

    def exists(self, location: str) -> bool:
        with remote_errors(location):
            return self._filesystem.exists(self._path(location))

    def is_folder(self, location: str) -> bool:
        if self._is_web:
            return location.endswith("/")
        with remote_errors(location):
            return self._filesystem.isdir(self._path(location))

    def check(self, location: str) -> None:
        if not self.exists(location):
            raise InputNotFoundError(f"the corpus file {location} does not exist", "check the URL")
        if self.size(location) == 0:
            raise InputError(f"the corpus file {location} is empty", "give a file with content")

    def files_within(self, folder: str) -> list[str]:
        with remote_errors(folder):
            root = self._path(folder).rstrip("/")
            found = [path for path in self._filesystem.find(root) if "/." not in path.removeprefix(root)]
            return sorted(map(self._url, found), key=_by_parts)

    def matches(self, pattern: str) -> list[str]:
        with remote_errors(pattern):
            # Hidden files are matched by a pattern that names them, as on this machine.
            found = [path for path in self._filesystem.glob(self._path(pattern)) if "/." not in path or "/." in pattern]
            return sorted(map(self._url, found), key=_by_parts)

    def size(self, location: str) -> int | None:
        with remote_errors(location):
            return self._filesystem.info(self._path(location)).get("size")

    def identity(self, location: str) -> str:
        return self._url(self._path(location))

    def _path(self, location: str) -> str:
        return self._filesystem._strip_protocol(location)

    def _url(self, path: str) -> str:
        return self._filesystem.unstrip_protocol(path)


def _by_parts(location: str) -> list[str]:
    return location.split("/")
