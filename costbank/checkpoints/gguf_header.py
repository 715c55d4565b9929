"""The header of a GGUF file: its metadata, and the offset of each tensor. No tensor is read.

    magic, version, counts ─ metadata: key, type, value … ─ tensors: name, shape, type, offset … ─ padding ─ data

Versions 2 and 3, in either byte order (github.com/ggml-org/ggml, docs/gguf.md). Opening a file only locates the arrays;
each is read on demand, because the arrays of a vocabulary make up nearly all of a header. Every count and length is
checked against the size of the file before it is used.
"""

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from costbank.errors import CheckpointError

__all__ = ["GGUFArray", "GGUFHeader", "GGUFTensor", "read_gguf_header"]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_STRINGS = 1 << 24
_MAX_KEYS = 1 << 16
_MAX_TENSORS = 1 << 20
_MAX_DIMENSIONS = 8
_MIN_KEY_BYTES, _MIN_TENSOR_BYTES = 13, 24
_DEFAULT_ALIGNMENT = 32
_AGAIN = "download or copy this file again"


@dataclass(frozen=True)
class GGUFArray:
    """An array in the metadata: GGUF's code for its element type, its length, and its offset in the file."""

    kind: int
    length: int
    begin: int


@dataclass(frozen=True)
class GGUFTensor:
    """A tensor's entry in the header.

    Attributes:
        name: its name.
        shape: rows first, as in NumPy. The file stores the dimensions in the opposite order.
        kind: ggml's code for the element type.
        begin: its offset in the file.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    begin: int


@dataclass(frozen=True)
class GGUFHeader:
    """The header of a GGUF file.

    Attributes:
        path: the file.
        size: its length in bytes.
        big_endian: whether its numbers are in big-endian byte order.
        metadata: numbers, booleans, strings as bytes, and arrays as `GGUFArray`.
        tensors: every tensor by name.
    """

    path: Path
    size: int
    big_endian: bool
    metadata: dict[str, Any]
    tensors: dict[str, GGUFTensor]

    def strings(self, key: str) -> list[bytes] | None:
        """An array of strings as bytes; None if the key does not exist.

        Raises:
            CheckpointError: the value is not an array of strings.
        """
        array = self._array(key)
        if array is None:
            return None
        if array.kind != _STRING:
            raise CheckpointError(f"{self.path}: {key} is not an array of strings", _AGAIN)
        with _Cursor.over(self.path, self.big_endian) as cursor:
            cursor.at = array.begin
            return cursor.strings(array.length, key)

    def numbers(self, key: str) -> np.ndarray | None:
        """An array of numbers in its stored type; None if the key does not exist.

        Raises:
            CheckpointError: the value is not an array of numbers.
        """
        array = self._array(key)
        if array is None:
            return None
        if array.kind == _STRING:
            raise CheckpointError(f"{self.path}: {key} is not an array of numbers", _AGAIN)
        dtype = np.dtype((">" if self.big_endian else "<") + _SCALARS[array.kind])
        with self.path.open("rb") as file:
            file.seek(array.begin)
            stored = file.read(array.length * dtype.itemsize)
        if len(stored) != array.length * dtype.itemsize:
            raise CheckpointError(f"{self.path} ends within {key}", _AGAIN)
        return np.frombuffer(stored, dtype)

    def _array(self, key: str) -> GGUFArray | None:
        value = self.metadata.get(key)
        if value is not None and not isinstance(value, GGUFArray):
            raise CheckpointError(f"{self.path}: {key} is not an array", _AGAIN)
        return value


def read_gguf_header(path: Path) -> GGUFHeader:
    """Read the header of one file.

    Raises:
        CheckpointError: the file is cut short, not GGUF, of an unknown version, or contradicts its own size.
    """
    if path.stat().st_size < 24:
        raise CheckpointError(f"{path} is shorter than a GGUF header", _AGAIN)
    with path.open("rb") as file:
        magic, version = file.read(4), file.read(4)
    if magic != _MAGIC:
        raise CheckpointError(f"{path} is not a GGUF file", _AGAIN)
    # Versions are small, so the zero half of the number shows the byte order.
    big_endian = version[:2] == b"\0\0"
    number = int.from_bytes(version, "big" if big_endian else "little")
    if number not in _VERSIONS:
        raise CheckpointError(
            f"{path} has GGUF version {number}, but only versions 2 and 3 are supported",
            "convert the model again with a current llama.cpp",
        )
    with _Cursor.over(path, big_endian) as cursor:
        cursor.at = 8
        return _header(cursor)


def _header(cursor: "_Cursor") -> GGUFHeader:
    tensors, keys = cursor.scalar("Q"), cursor.scalar("Q")
    cursor.check_count(keys, _MIN_KEY_BYTES, _MAX_KEYS, "metadata keys")
    cursor.check_count(tensors, _MIN_TENSOR_BYTES, _MAX_TENSORS, "tensors")
    metadata: dict[str, Any] = {}
    for _ in range(keys):
        key = cursor.text("a metadata key")
        if key in metadata:
            raise cursor.broken(f"has the metadata key {key!r} twice")
        metadata[key] = _value(cursor, cursor.scalar("I"), key)
    listed: dict[str, GGUFTensor] = {}
    for _ in range(tensors):
        name = cursor.text("a tensor's name")
        if name in listed:
            raise cursor.broken(f"has the tensor {name!r} twice")
        dimensions = cursor.scalar("I")
        if dimensions > _MAX_DIMENSIONS:
            raise cursor.broken(f"claims {dimensions:,} dimensions for the tensor {name!r}")
        shape = tuple(cursor.scalar("Q") for _ in range(dimensions))[::-1]
        listed[name] = GGUFTensor(name, shape, cursor.scalar("I"), cursor.scalar("Q"))
    start = _data_start(cursor, metadata)
    for name, tensor in listed.items():
        if start + tensor.begin > cursor.size and prod(tensor.shape):
            raise cursor.broken(f"is cut short: the tensor {name!r} begins after the end of the file")
    absolute = {name: replace(tensor, begin=start + tensor.begin) for name, tensor in listed.items()}
    return GGUFHeader(cursor.path, cursor.size, cursor.order == ">", metadata, absolute)


def _value(cursor: "_Cursor", kind: int, key: str) -> Any:
    if kind == _STRING:
        return cursor.take(cursor.scalar("Q"), key)
    if kind in _SCALARS:
        return cursor.scalar(_SCALARS[kind])
    if kind != _ARRAY:
        raise cursor.broken(f"stores {key} with the unknown type {kind}")
    element, length = cursor.scalar("I"), cursor.scalar("Q")
    array = GGUFArray(element, length, cursor.at)
    if element in _SCALARS:
        cursor.skip(length * struct.calcsize(_SCALARS[element]), key)
    elif element == _STRING:
        cursor.check_count(length, 8, _MAX_STRINGS, f"strings in {key}")
        cursor.skip_strings(length, key)
    else:
        what = "arrays, which are not supported" if element == _ARRAY else f"values of the unknown type {element}"
        raise cursor.broken(f"has {key} as an array of {what}")
    return array


def _data_start(cursor: "_Cursor", metadata: dict[str, Any]) -> int:
    """The offset at which the data of the tensors begins."""
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment <= 0 or alignment & (alignment - 1):
        raise cursor.broken(f"has general.alignment {alignment!r}, which is not a power of two")
    return cursor.at + -cursor.at % alignment


class _Cursor:
    """A position in a mapped file, with reads that never go past the end of the file."""

    def __init__(self, path: Path, mapped: mmap.mmap, big_endian: bool) -> None:
        self.path, self.mapped, self.size, self.at = path, mapped, len(mapped), 0
        self.order = ">" if big_endian else "<"
        self._structs = {code: struct.Struct(self.order + code) for code in (*_SCALARS.values(), "Q")}

    @classmethod
    @contextmanager
    def over(cls, path: Path, big_endian: bool) -> Iterator["_Cursor"]:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            yield cls(path, mapped, big_endian)

    def broken(self, why: str) -> CheckpointError:
        return CheckpointError(f"{self.path} {why}", _AGAIN)

    def scalar(self, code: str) -> Any:
        layout = self._structs[code]
        if self.at + layout.size > self.size:
            raise self.broken("is cut short: it ends within its header")
        (value,) = layout.unpack_from(self.mapped, self.at)
        self.at += layout.size
        return value

    def skip(self, count: int, what: str) -> None:
        if count > self.size - self.at:
            raise self.broken(f"is cut short, or claims {count:,} bytes for {what}")
        self.at += count

    def take(self, count: int, what: str) -> bytes:
        begin = self.at
        self.skip(count, what)
        return self.mapped[begin : self.at]

    def text(self, what: str) -> str:
        stored = self.take(self.scalar("Q"), what)
        try:
            return stored.decode()
        except UnicodeDecodeError:
            raise self.broken(f"has {what} that is not UTF-8: {stored[:40]!r}") from None

    def check_count(self, count: int, min_bytes: int, limit: int, what: str) -> None:
        """Check a count of items, each of at least `min_bytes`, against a limit and the rest of the file."""
        if count > limit or count * min_bytes > self.size - self.at:
            raise self.broken(f"is cut short, or claims {count:,} {what}")

    def skip_strings(self, count: int, what: str) -> None:
        mapped, at, last, unpack = self.mapped, self.at, self.size - 8, self._structs["Q"].unpack_from
        for _ in range(count):
            if at > last:
                break
            at += 8 + unpack(mapped, at)[0]
        if at > self.size or (count and at > last + 8):
            raise self.broken(f"is cut short, or claims too many bytes for {what}")
        self.at = at

    def strings(self, count: int, what: str) -> list[bytes]:
        begin = self.at
        self.skip_strings(count, what)
        mapped, unpack, strings, at = self.mapped, self._structs["Q"].unpack_from, [], begin
        for _ in range(count):
            end = at + 8 + unpack(mapped, at)[0]
            strings.append(mapped[at + 8 : end])
            at = end
        return strings
