"""One interface to local and remote files: list them, and check their existence, size and identity."""

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from costbank.errors import InputError, InputNotFoundError
from costbank.files import check_readable
from costbank.urls import is_url, remote_errors, remote_filesystem

__all__ = [
    "FileSystem",
    "file_name",
    "filesystem_of",
    "has_wildcards",
]

_WILDCARDS = re.compile(r"[*?\[]")


class FileSystem(Protocol):
    """Access to files by path or URL. Lists are sorted by path component, so the order is the same everywhere."""

    def exists(self, location: str) -> bool: ...

    def is_folder(self, location: str) -> bool: ...

    def check(self, location: str) -> None:
        """Raise an `InputNotFoundError` or an `InputError` unless the location is a readable file that is not empty."""
        ...

    def files_within(self, folder: str) -> list[str]:
        """All files in a folder and its subfolders, except hidden files."""
        ...

    def matches(self, pattern: str) -> list[str]:
        """The files and folders that match a pattern of `*`, `?`, `[…]` and `**`."""
        ...

    def size(self, location: str) -> int | None:
        """The size in bytes; None if the server does not report it."""
        ...

    def identity(self, location: str) -> str:
        """A string that is the same for all paths to one file."""
        ...


def filesystem_of(location: str) -> FileSystem:
    """The file system of a path or a URL.

    Raises:
        MissingExtraError: the library for this URL scheme is not installed.
        UsageError: the URL scheme is unknown.
    """
    return _RemoteFiles(location) if is_url(location) else _LocalFiles()


def has_wildcards(location: str) -> bool:
    return _WILDCARDS.search(location) is not None


def file_name(location: str) -> str:
    """The last part of a path, or of a URL without its query."""
    name = location.rpartition("/")[2]
    return name.partition("?")[0] if location.startswith(("http://", "https://")) else name


class _LocalFiles:
    def exists(self, location: str) -> bool:
        return os.path.lexists(location)

    def is_folder(self, location: str) -> bool:
        return Path(location).is_dir()

    def check(self, location: str) -> None:
        check_readable(Path(location), "corpus file")

    def files_within(self, folder: str) -> list[str]:
        return sorted(self._walk(folder, frozenset()), key=_by_parts)

    def _walk(self, folder: str, above: frozenset[str]) -> Iterator[str]:
        # Follow links to folders, except to a folder that contains the current one.
        real = os.path.realpath(folder)
        if real in above:
            return
        try:
            entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
        except OSError as error:
            raise InputError(f"the folder {folder} cannot be read: {error.strerror}", f"chmod +rx {folder}") from error
        for entry in entries:
            if entry.is_dir():
                yield from self._walk(entry.path, above | {real})
            elif entry.is_file():
                yield entry.path

    def matches(self, pattern: str) -> list[str]:
        return sorted(glob.glob(pattern, recursive=True), key=_by_parts)  # noqa: PTH207 - keeps paths as the user wrote them

    def size(self, location: str) -> int | None:
        return Path(location).stat().st_size

    def identity(self, location: str) -> str:
        return os.path.realpath(location)


class _RemoteFiles:
    def __init__(self, url: str) -> None:
        self._filesystem, _ = remote_filesystem(url, "corpus")
        # fsspec treats a web page with links as a folder; here it is a file.
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
            raise InputError(f"the corpus file {location} is empty", "name a file with content")

    def files_within(self, folder: str) -> list[str]:
        with remote_errors(folder):
            root = self._path(folder).rstrip("/")
            paths = [path for path in self._filesystem.find(root) if "/." not in path.removeprefix(root)]
            return sorted(map(self._url, paths), key=_by_parts)

    def matches(self, pattern: str) -> list[str]:
        with remote_errors(pattern):
            # As on a local disk, only a pattern with a dot at the start of a name matches hidden files.
            paths = [path for path in self._filesystem.glob(self._path(pattern)) if "/." not in path or "/." in pattern]
            return sorted(map(self._url, paths), key=_by_parts)

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
