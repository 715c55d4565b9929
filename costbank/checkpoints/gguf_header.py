"""The header of a GGUF file: its metadata and where its tensors are, without reading any tensor.

    magic, version, counts ─ metadata: key, type, value … ─ tensors: name, shape, type, offset … ─ padding ─ data

Versions 2 and 3, in either byte order (github.com/ggml-org/ggml, docs/gguf.md). Arrays are located when a file is
opened and read when they are asked for, because those of a vocabulary make up nearly all of a header. Every count
and length is checked against the file's size before it is used.
"""

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
_MOST_STRINGS = 1 << 24
_MOST_KEYS = 1 << 16
_MOST_TENSORS = 1 << 20
_MOST_DIMENSIONS = 8
_LEAST_KEY_BYTES, _LEAST_TENSOR_BYTES = 13, 24
_DEFAULT_ALIGNMENT = 32
_AGAIN = "download or copy this file again"


@dataclass(frozen=True)
class GGUFArray:
    """An array in the metadata: its element type by the format's code, its length, and its first byte in the file."""

    kind: int
    length: int
    begin: int


@dataclass(frozen=True)
class GGUFTensor:
    """A tensor's place in its file.

    Attributes:
        name: its name.
        shape: rows before columns, as NumPy has it; a file stores it the other way round.
        kind: the element type by ggml's code.
        begin: its first byte in the file.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    begin: int


@dataclass(frozen=True)
class GGUFHeader:
    """What a GGUF file says about itself.

    Attributes:
        path: the file.
        size: its length in bytes.
        big_endian: whether its numbers are stored with the most significant byte first.
        metadata: numbers, booleans, strings as bytes, and arrays by their place.
        tensors: every tensor by name.
    """

    path: Path
    size: int
    big_endian: bool
    metadata: dict[str, Any]
    tensors: dict[str, GGUFTensor]

    def strings(self, key: str) -> list[bytes] | None:
        """An array of strings as bytes; None where there is no such key.

        Raises:
            CheckpointError: the value is something else.
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
        """An array of numbers in the type that it is stored as; None where there is no such key.

        Raises:
            CheckpointError: the value is something else.
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
        CheckpointError: the file is cut short, not GGUF, of an unknown version, or claims what it does not hold.
    """
    if path.stat().st_size < 24:
        raise CheckpointError(f"{path} is shorter than a GGUF header", _AGAIN)
    with path.open("rb") as file:
        magic, version = file.read(4), file.read(4)
    if magic != _MAGIC:
        raise CheckpointError(f"{path} is not a GGUF file", _AGAIN)
    # Versions are small, so the half that is zero says which end comes first.
    big_endian = version[:2] == b"\0\0"
    number = int.from_bytes(version, "big" if big_endian else "little")
    if number not in _VERSIONS:
        raise CheckpointError(
            f"{path} is GGUF version {number}, and versions 2 and 3 are supported",
            "convert the model again with a current llama.cpp",
        )
    with _Cursor.over(path, big_endian) as cursor:
        cursor.at = 8
        return _header(cursor)


def _header(cursor: "_Cursor") -> GGUFHeader:
    tensors, keys = cursor.scalar("Q"), cursor.scalar("Q")
    cursor.check_count(keys, _LEAST_KEY_BYTES, _MOST_KEYS, "metadata keys")
    cursor.check_count(tensors, _LEAST_TENSOR_BYTES, _MOST_TENSORS, "tensors")
    metadata: dict[str, Any] = {}
    for _ in range(keys):
        key = cursor.text("a metadata key")
        if key in metadata:
            raise cursor.broken(f"holds the metadata key {key!r} twice")
        metadata[key] = _value(cursor, cursor.scalar("I"), key)
    found: dict[str, GGUFTensor] = {}
    for _ in range(tensors):
        name = cursor.text("a tensor's name")
        if name in found:
            raise cursor.broken(f"holds the tensor {name!r} twice")
        dimensions = cursor.scalar("I")
        if dimensions > _MOST_DIMENSIONS:
            raise cursor.broken(f"claims {dimensions:,} dimensions for the tensor {name!r}")
        shape = tuple(cursor.scalar("Q") for _ in range(dimensions))[::-1]
        found[name] = GGUFTensor(name, shape, cursor.scalar("I"), cursor.scalar("Q"))
    start = _aligned(cursor, metadata)
    for name, tensor in found.items():
        if start + tensor.begin > cursor.size and prod(tensor.shape):
            raise cursor.broken(f"is cut short: the tensor {name!r} begins after its end")
        found[name] = GGUFTensor(name, tensor.shape, tensor.kind, start + tensor.begin)
    return GGUFHeader(cursor.path, cursor.size, cursor.order == ">", metadata, found)


def _value(cursor: "_Cursor", kind: int, key: str) -> Any:
    if kind == _STRING:
        return cursor.take(cursor.scalar("Q"), key)
    if kind in _SCALARS:
        return cursor.scalar(_SCALARS[kind])
    if kind != _ARRAY:
        raise cursor.broken(f"gives {key} the unknown type {kind}")
    element, length = cursor.scalar("I"), cursor.scalar("Q")
    array = GGUFArray(element, length, cursor.at)
    if element in _SCALARS:
        cursor.skip(length * struct.calcsize(_SCALARS[element]), key)
    elif element == _STRING:
        cursor.check_count(length, 8, _MOST_STRINGS, f"strings in {key}")
        cursor.skip_strings(length, key)
    else:
        what = "arrays, which are not supported" if element == _ARRAY else f"values of the unknown type {element}"
        raise cursor.broken(f"fills {key} with {what}")
    return array


def _aligned(cursor: "_Cursor", metadata: dict[str, Any]) -> int:
    """Where the data begins."""
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment <= 0 or alignment & (alignment - 1):
        raise cursor.broken(f"gives general.alignment as {alignment!r}, which is not a power of two")
    return cursor.at + -cursor.at % alignment


class _Cursor:
    """A position in a mapped file, and reads that never go past its end."""

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
        form = self._structs[code]
        if self.at + form.size > self.size:
            raise self.broken("is cut short: it ends within its header")
        (value,) = form.unpack_from(self.mapped, self.at)
        self.at += form.size
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
            raise self.broken(f"gives {what} that is not UTF-8: {stored[:40]!r}") from None

    def check_count(self, count: int, least_bytes: int, most: int, what: str) -> None:
        if count > most or count * least_bytes > self.size - self.at:
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
        mapped, unpack, found, at = self.mapped, self._structs["Q"].unpack_from, [], begin
        for _ in range(count):
            end = at + 8 + unpack(mapped, at)[0]
            found.append(mapped[at + 8 : end])
            at = end
        return found
