"""Files on other machines, brought to this one for as long as they are needed."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

from costbank.corpus.readers.formats import CorpusFile
from costbank.corpus.readers.remote import remote_errors, remote_filesystem
from costbank.corpus.readers.streams import open_stored
from costbank.files import FileDigest, staging_directory

__all__ = ["fetched", "remote_version"]

_COPIED_BYTES = 4 << 20
_TELLING = ("etag", "version_id", "generation", "md5hash", "crc32c", "content-md5", "digest", "checksum", "sha256",
            "last-modified", "last_modified", "lastmodified", "mtime", "updated", "created", "blob_id")  # fmt: skip


def remote_version(file: CorpusFile) -> str:
    """What tells this content of a URL from others, as far as its server says; where it does not, this very moment."""
    filesystem, path = remote_filesystem(file.location)
    with remote_errors(file.location):
        info = filesystem.info(path)
    told = {name: str(value) for name, value in info.items() if name.lower() in _TELLING and value is not None}
    return str(sorted(told.items())) + f" {info.get('size')}" if told else str(time.time_ns())


@contextmanager
def fetched(file: CorpusFile, staging: Path) -> Iterator[tuple[CorpusFile, FileDigest]]:
    """A copy of a remote file on this machine, and the digest of its content; the copy is removed in the end.

    Raises:
        InputError, InputNotFoundError: it cannot be read.
        OSError: the copy cannot be written.
    """
    with staging_directory(staging) as place:
        copy, digest, size = place / PurePosixPath(file.location).name.partition("?")[0], hashlib.sha256(), 0
        with open_stored(file) as source, copy.open("wb") as target:
            while True:
                with remote_errors(file.location):
                    data = source.read(_COPIED_BYTES)
                if not data:
                    break
                target.write(data)
                digest.update(data)
                size += len(data)
        yield replace(file, location=str(copy), title=file.shown, size=size), FileDigest(size, digest.hexdigest())
