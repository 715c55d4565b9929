"""The bytes of a corpus file, local or remote: as a decompressed stream, or as a local copy.

Compressed data that is damaged or ends too early is always an error; no data is dropped silently.
"""

import hashlib
import io
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from costbank.corpus.readers.formats import WHOLE, CorpusFile, Part
from costbank.errors import CorpusError, InputError, require
from costbank.files import FileDigest, staging_directory
from costbank.urls import remote_errors, remote_filesystem

__all__ = ["MAX_WINDOW_BYTES", "ByteStream", "fetched", "open_stored", "open_stream", "remote_version"]

_PLAIN_CHUNK_BYTES = 1 << 20
_COMPRESSED_CHUNK_BYTES = 1 << 15
_MAX_OUTPUT_BYTES = 1 << 20
_COPY_BYTES = 4 << 20
# Many published corpora are compressed with `zstd --long=31`, which the library refuses by default.
MAX_WINDOW_BYTES = 1 << 31
_VERSION_KEYS = frozenset(
    [
        "etag",
        "version_id",
        "generation",
        "md5hash",
        "crc32c",
        "content-md5",
        "digest",
        "checksum",
        "sha256",
        "last-modified",
        "last_modified",
        "lastmodified",
        "mtime",
        "updated",
        "created",
        "blob_id",
    ]
)


class ByteStream:
    """The decompressed bytes of a file, and the number of stored bytes that were read for them."""

    def __init__(self, file: CorpusFile, handle: Any, part: Part) -> None:
        self._stored = _Stored(file, handle, part)
        self._compressed = file.compression != "none"
        chunks = _DECOMPRESSED[file.compression](self._stored)
        self._reader = io.BufferedReader(_ChunkReader(chunks), _PLAIN_CHUNK_BYTES)
        self._read_bytes = 0

    @property
    def consumed(self) -> int:
        """The number of stored bytes that were read so far or, in a compressed file, decompressed so far."""
        return self._stored.used if self._compressed else self._read_bytes

    def read(self, size: int) -> bytes:
        data = self._reader.read(size)
        self._read_bytes += len(data)
        return data

    def readline(self) -> bytes:
        data = self._reader.readline()
        self._read_bytes += len(data)
        return data


@contextmanager
def open_stream(file: CorpusFile, part: Part = WHOLE) -> Iterator[ByteStream]:
    """Open the text of a file, or of a range of its bytes; a compressed file is always read completely.

    Raises:
        CorpusError: compressed data ends too early, is damaged, or is followed by other bytes; raised while reading.
        InputError: the file cannot be opened or read.
        InputNotFoundError: the file no longer exists.
        MissingExtraError: a library that the file needs is not installed.
    """
    with open_stored(file) as handle:
        yield ByteStream(file, handle, part)


@contextmanager
def open_stored(file: CorpusFile) -> Iterator[Any]:
    """Open the stored bytes of a local or remote file.

    Raises:
        InputError: the file cannot be opened.
        InputNotFoundError: the file no longer exists.
        MissingExtraError: a library that the file needs is not installed.
    """
    with _read_errors(file):
        if file.is_remote:
            filesystem, path = remote_filesystem(file.location, "corpus")
            handle = filesystem.open(path, "rb")
        else:
            handle = file.path.open("rb", buffering=0)
    with handle:
        yield handle


def remote_version(file: CorpusFile) -> str:
    """The identity of the content of a URL: the version that its server reports, or else the current time."""
    filesystem, path = remote_filesystem(file.location, "corpus")
    with remote_errors(file.location):
        info = filesystem.info(path)
    version = {name: str(value) for name, value in info.items() if name.lower() in _VERSION_KEYS and value is not None}
    return str(sorted(version.items())) + f" {info.get('size')}" if version else str(time.time_ns())


@contextmanager
def fetched(file: CorpusFile, staging: Path) -> Iterator[tuple[CorpusFile, FileDigest]]:
    """Download a remote file; yield the local copy and its digest. The copy is deleted on exit.

    Raises:
        InputError, InputNotFoundError: the remote file cannot be read.
        OSError: the copy cannot be written.
    """
    with staging_directory(staging) as directory:
        copy, digest, size = directory / PurePosixPath(file.location).name.partition("?")[0], hashlib.sha256(), 0
        with open_stored(file) as source, copy.open("wb") as target:
            while True:
                with remote_errors(file.location):
                    data = source.read(_COPY_BYTES)
                if not data:
                    break
                target.write(data)
                digest.update(data)
                size += len(data)
        yield replace(file, location=str(copy), title=file.shown, size=size), FileDigest(size, digest.hexdigest())


@contextmanager
def _read_errors(file: CorpusFile) -> Iterator[None]:
    if file.is_remote:
        with remote_errors(file.location):
            yield
        return
    try:
        yield
    except OSError as error:
        raise InputError(f"{file.shown} cannot be read: {error.strerror}", "check the file and its disk") from error


class _Stored:
    """The stored bytes of a part of a file in chunks, and how many of them were decompressed."""

    def __init__(self, file: CorpusFile, handle: Any, part: Part) -> None:
        self.file = file
        self._handle, self._part = handle, part
        self.position = part.start
        self.unused = 0

    @property
    def used(self) -> int:
        return self.position - self.unused - self._part.start

    def chunks(self, size: int) -> Iterator[bytes]:
        with _read_errors(self.file):
            if self._part.start:
                self._handle.seek(self._part.start)
            while chunk := self._handle.read(self._allowed(size)):
                self.position += len(chunk)
                yield chunk

    def _allowed(self, size: int) -> int:
        return size if self._part.stop is None else max(0, min(size, self._part.stop - self.position))


class _ChunkReader(io.RawIOBase):
    """A file object that reads from an iterator of chunks."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._chunk = chunks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._chunk:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._chunk = memoryview(chunk)
        size = min(len(buffer), len(self._chunk))
        buffer[:size] = self._chunk[:size]
        self._chunk = self._chunk[size:]
        return size


def _plain(stored: _Stored) -> Iterator[bytes]:
    return stored.chunks(_PLAIN_CHUNK_BYTES)


def _gunzipped(stored: _Stored) -> Iterator[bytes]:
    member, members, text_bytes = None, 0, 0
    for data in stored.chunks(_COMPRESSED_CHUNK_BYTES):
        while True:
            if member is None:
                data = data.lstrip(b"\0") if members else data  # tapes and some object stores add zeros
                if not data:
                    break
                member, members = zlib.decompressobj(wbits=31), members + 1
            stored.unused = len(data)
            try:
                output = member.decompress(data, _MAX_OUTPUT_BYTES)
            except zlib.error as error:
                raise _damaged(stored, text_bytes, str(error).rpartition(": ")[2]) from None
            data = member.unused_data if member.eof else member.unconsumed_tail
            stored.unused = len(data)
            text_bytes += len(output)
            if output:
                yield output
            if member.eof:
                member = None
            elif not data and len(output) < _MAX_OUTPUT_BYTES:
                break
        stored.unused = 0
    if member is not None:
        raise _cut_short(stored, text_bytes, "member")


def _unzstd(stored: _Stored) -> Iterator[bytes]:
    zstandard = require("zstandard", "corpus")
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
    frame, text_bytes = None, 0
    for data in stored.chunks(_COMPRESSED_CHUNK_BYTES):
        while data:
            frame = frame or decompressor.decompressobj()
            stored.unused = len(data)
            try:
                output = frame.decompress(data)
            except zstandard.ZstdError as error:
                raise _damaged(stored, text_bytes, str(error).rpartition(": ")[2]) from None
            except MemoryError:
                raise _damaged(stored, text_bytes, "not enough memory for a frame") from None
            data = frame.unused_data if frame.eof else b""
            stored.unused = len(data)
            text_bytes += len(output)
            if frame.eof:
                frame = None
            if output:
                yield output
    if frame is not None:
        raise _cut_short(stored, text_bytes, "frame")


_DECOMPRESSED = {"none": _plain, "gz": _gunzipped, "zst": _unzstd}
_TESTERS = {"gz": "gzip -t", "zst": "zstd -t"}


def _cut_short(stored: _Stored, text_bytes: int, unit: str) -> CorpusError:
    file = stored.file
    return CorpusError(
        f"{file.shown} is truncated: it ends at offset {stored.position} within a {unit} of its "
        f"{file.compression} data, after {text_bytes} bytes of text",
        f"copy or download it again; `{_TESTERS[file.compression]}` tests such a file",
    )


def _damaged(stored: _Stored, text_bytes: int, reason: str) -> CorpusError:
    file = stored.file
    return CorpusError(
        f"{file.shown} is damaged: its {file.compression} data cannot be read from offset {stored.used} ({reason}), "
        f"after {text_bytes} bytes of text",
        f"copy or download it again; `{_TESTERS[file.compression]}` tests such a file",
    )
