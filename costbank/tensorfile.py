"""Safetensors files, written as a stream and read through a memory map.

The safetensors library writes only complete tensors and does not support BF16 in NumPy. For heads of gigabytes, this
module writes rows block by block, hashes them at the same time, and maps any range of rows without a copy.
"""

import hashlib
import json
import mmap
import os
import shlex
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float32, Integer

from costbank.element_types import ELEMENT_TYPES, to_float32
from costbank.errors import CorruptBankError, CostbankError, ShapeError
from costbank.files import FileDigest

__all__ = [
    "MappedTensor",
    "TensorEntry",
    "TensorHeader",
    "TensorSpec",
    "bank_dtype",
    "map_tensors",
    "parse_header",
    "read_header",
    "tensor_views",
    "write_tensors",
]

_BANK_TYPES = ("F32", "F16", "BF16", "I64", "I32", "U8")
_MOST_HEADER_BYTES = 100_000_000
_MOST_SIZE = (1 << 64) - 1
_MOST_DEPTH = 100
_FIELDS = ("dtype", "shape", "data_offsets")
_MAX_PENDING_HASHES = 2
_REPAIR = "the file is damaged; build or copy it again"


@dataclass(frozen=True)
class TensorSpec:
    """The type of a tensor: the safetensors name of its dtype, and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """The size of the tensor in bytes."""
        return prod(self.shape) * ELEMENT_TYPES[self.dtype].dtype.itemsize


@dataclass(frozen=True)
class TensorEntry:
    """A tensor in a header; `begin` and `end` count bytes from the start of the data."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class TensorHeader:
    """A file's header: the offset of the data in bytes, and the tensors by name."""

    start: int
    entries: dict[str, TensorEntry]


@dataclass(frozen=True)
class MappedTensor:
    """A tensor in a mapped file, at byte `begin`. `data` is read-only; elements of BF16 are raw bits."""

    spec: TensorSpec
    data: np.ndarray
    mapped: mmap.mmap
    path: Path
    begin: int

    def float32(self, rows: np.ndarray | slice) -> Float32[np.ndarray, "..."]:
        """These rows of a floating-point tensor as float32, with exactly the stored values."""
        return to_float32(self.data[rows], self.spec.dtype)

    @contextmanager
    def streamed(self, most_bytes: int = 256 << 20) -> Iterator[Callable[[np.ndarray | slice], np.ndarray]]:
        """`float32` for passes over gigabytes, in bounded memory.

        A slice is mapped; after every `most_bytes`, the pages that were read are released, and views of them stay
        valid. Rows by id are read instead, because Linux maps up to two megabytes around each row. A tensor of at most
        `most_bytes` is only mapped.
        """
        if self.data.nbytes <= most_bytes:
            yield self.float32
            return
        mapped_bytes = 0
        with self.path.open("rb", buffering=0) as file:

            def read_rows(rows: np.ndarray | slice) -> Float32[np.ndarray, "..."]:
                nonlocal mapped_bytes
                if not isinstance(rows, slice):
                    return to_float32(self._read(file.fileno(), rows), self.spec.dtype)
                if mapped_bytes > most_bytes:
                    self.release()
                    mapped_bytes = 0
                block = self.float32(rows)
                mapped_bytes += block.nbytes
                return block

            yield read_rows

    def _read(self, descriptor: int, ids: Integer[np.ndarray, "rows"]) -> np.ndarray:
        rows = np.empty((len(ids), *self.data.shape[1:]), self.data.dtype)
        if not rows.size:
            return rows
        buffer, row_bytes, position = rows.data.cast("B"), rows[0].nbytes, 0
        for row in ids.tolist():
            target = buffer[position : position + row_bytes]
            if os.preadv(descriptor, [target], self.begin + row * row_bytes) != row_bytes:
                raise CorruptBankError(f"{self.path} ends within row {row:,}", _REPAIR)
            position += row_bytes
        return rows

    def release(self) -> None:
        """Release the pages that were read, so that they do not count as memory in use."""
        self.mapped.madvise(mmap.MADV_DONTNEED)


def write_tensors(path: Path, tensors: Mapping[str, tuple[TensorSpec, Iterable[np.ndarray]]]) -> FileDigest:
    """Write and fsync a safetensors file from blocks of stored elements, with one block in memory at a time.

    The tensors are written in the order of the mapping; those with the largest elements must come first, so that all
    are aligned.

    Raises:
        ShapeError: a tensor's blocks have more or fewer bytes than its spec.
    """
    header, begin = {}, 0
    for name, (spec, _) in tensors.items():
        header[name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [begin, begin + spec.nbytes]}
        begin += spec.nbytes
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    digest = hashlib.sha256()
    with path.open("xb", buffering=0) as file, ThreadPoolExecutor(1, "costbank-hash") as hashing:
        position, pending_hashes = 0, deque[Future[None]]()

        def put(data: bytes | memoryview) -> None:
            nonlocal position
            pending_hashes.append(hashing.submit(digest.update, data))
            while data:
                data = memoryview(data)[file.write(data) :]
            position = file.tell()
            if len(pending_hashes) > _MAX_PENDING_HASHES:
                pending_hashes.popleft().result()

        put(len(encoded).to_bytes(8, "little") + encoded)
        for name, (spec, blocks) in tensors.items():
            written = 0
            for block in blocks:
                data = np.ascontiguousarray(block, ELEMENT_TYPES[spec.dtype].dtype).data
                if data.nbytes:
                    put(data.cast("B"))
                written += data.nbytes
            if written != spec.nbytes:
                raise ShapeError(
                    f"tensor {name!r} of shape {list(spec.shape)} has {spec.nbytes} bytes, but {written} were given",
                    "give every row once",
                )
        os.fsync(file.fileno())
    return FileDigest(position, digest.hexdigest())


def read_header(path: Path, error: type[CostbankError] = CorruptBankError, hint: str = _REPAIR) -> TensorHeader:
    """Read a safetensors header and check it against the file's size, as strictly as the safetensors library does.

    Tensors must cover the data without holes or overlaps, up to the file's last byte. There are two differences. Two
    tensors with the same name are an error here, while the library takes the last one. An unknown dtype is accepted
    here, so that the other tensors can be read, while the library refuses the file.

    Args:
        path: the file.
        error: the class of the error to raise.
        hint: the hint of that error.

    Raises:
        error: the header is not valid, or does not describe the file exactly.
    """
    with path.open("rb") as file:
        return parse_header(file, os.fstat(file.fileno()).st_size, path, error, hint)


def parse_header(
    file: BinaryIO, size: int, path: Path, error: type[CostbankError] = CorruptBankError, hint: str = _REPAIR
) -> TensorHeader:
    """`read_header` for a file that is open at its start, or for bytes in memory; `path` is used only in messages."""

    def invalid(problem: str, other_hint: str = "") -> CostbankError:
        return error(f"{path}: {problem}", other_hint or hint)

    if size < 8:
        raise invalid("it is shorter than a safetensors header")
    header_size = int.from_bytes(file.read(8), "little")
    if header_size > min(size - 8, _MOST_HEADER_BYTES):
        raise invalid(f"its header should have {header_size} bytes, but the file has {size}")
    encoded = file.read(header_size)
    try:
        entries = _parse_entries(encoded)
    except (ValueError, RecursionError) as problem:
        detail = f": {problem}" if isinstance(problem, _HeaderError) else ""
        raise invalid(f"its header is not a safetensors header{detail}") from None
    start, covered = 8 + header_size, 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if not _has_size_of_shape(entry) or start + entry.end > size:
            raise invalid(
                f"tensor {name!r} has bytes {entry.begin} to {entry.end}, which do not match its shape or the file"
            )
        if entry.begin < covered:
            raise invalid(f"tensor {name!r} overlaps another tensor")
        if entry.begin > covered:
            raise invalid(
                f"bytes {covered} to {entry.begin} of its data, before tensor {name!r}, belong to no tensor",
                f"{hint}; if a program wrote it like this, save it again with safetensors.save_file: no reader accepts "
                "such holes",
            )
        covered = entry.end
    if start + covered < size:
        raise invalid(
            f"{size - start - covered:,} bytes follow its last tensor, so it was changed after it was written",
            f"{hint}; if you are sure that only the end is wrong, cut it off: "
            f"truncate -s {start + covered} {shlex.quote(str(path))}",
        )
    return TensorHeader(start, entries)


class _HeaderError(ValueError):
    """A header's JSON is not valid."""


def _parse_entries(encoded: bytes) -> dict[str, TensorEntry]:
    """The tensors in a header's JSON, which is parsed as strictly as serde parses it into the library's types.

    Raises:
        ValueError: it is not JSON in UTF-8, or not an object of tensors.
    """
    pairs = json.loads(
        encoded.decode(), object_pairs_hook=_Pairs, parse_int=_parse_int, parse_constant=_refuse_constant
    )
    if not isinstance(pairs, _Pairs) or not _is_accepted_by_serde(pairs, encoded):
        raise _HeaderError("not an object of tensors")
    entries: dict[str, TensorEntry] = {}
    has_metadata = False
    for name, value in pairs:
        if name == "__metadata__":
            is_strings = isinstance(value, _Pairs) and all(isinstance(text, str) for _, text in value)
            if has_metadata or not (value is None or is_strings):
                raise _HeaderError("__metadata__ is not an object of strings")
            has_metadata = True
            continue
        if name in entries:
            raise _HeaderError(f"it has tensor {name!r} twice")
        entries[name] = _parse_entry(name, value)
    return entries


def _parse_entry(name: str, value: object) -> TensorEntry:
    fields = [(key, part) for key, part in value if key in _FIELDS] if isinstance(value, _Pairs) else []
    if sorted(key for key, _ in fields) != sorted(_FIELDS):
        raise _HeaderError(f"tensor {name!r} does not have one dtype, shape and data_offsets")
    dtype, shape, offsets = (dict(fields)[key] for key in _FIELDS)
    if not isinstance(dtype, str) or not all(map(_is_list_of_sizes, (shape, offsets))) or len(offsets) != 2:
        raise _HeaderError(f"tensor {name!r} has a dtype, shape or data_offsets of the wrong type")
    return TensorEntry(dtype, tuple(shape), *offsets)


class _Pairs(list[tuple[str, Any]]):
    """A JSON object, with repeated keys."""


def _parse_int(text: str) -> int | float:
    return -0.0 if text == "-0" else int(text)


def _refuse_constant(text: str) -> float:
    raise _HeaderError(f"{text} is not JSON")


def _is_list_of_sizes(value: object) -> bool:
    return type(value) is list and all(type(size) is int and 0 <= size <= _MOST_SIZE for size in value)


def _is_accepted_by_serde(value: object, encoded: bytes) -> bool:
    """Whether a value is nested at most 100 levels deep.

    Raises:
        UnicodeEncodeError: a string has a lone surrogate.
    """
    if b"\\u" in encoded:
        json.dumps(value, ensure_ascii=False).encode()
    layer = [value]
    for _ in range(_MOST_DEPTH):
        layer = [item for container in layer if isinstance(container, list | tuple) for item in container]
        if not layer:
            return True
    return False


def _has_size_of_shape(entry: TensorEntry) -> bool:
    """Whether a tensor has as many bytes as its dtype and shape require."""
    elements, element_type = 1, ELEMENT_TYPES.get(entry.dtype)
    for size in entry.shape:
        elements *= size
        if elements > _MOST_SIZE:
            return False
    if element_type is None:
        return entry.begin <= entry.end
    bits = elements * element_type.bits
    return bits <= _MOST_SIZE and (entry.end - entry.begin) * 8 == bits


def map_tensors(path: Path) -> dict[str, MappedTensor]:
    """Map a safetensors file of a bank; bytes of tensors are read only when they are used.

    Raises:
        CorruptBankError: the header is not valid, or does not describe the file exactly.
    """
    header = read_header(path)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return {
        name: MappedTensor(TensorSpec(entry.dtype, entry.shape), data, mapped, path, header.start + entry.begin)
        for name, (entry, data) in tensor_views(header, mapped, path).items()
    }


def tensor_views(
    header: TensorHeader, data: mmap.mmap | bytes, path: Path
) -> dict[str, tuple[TensorEntry, np.ndarray]]:
    """The tensors of a mapped file, or of one in memory, as read-only arrays without a copy.

    Raises:
        CorruptBankError: a tensor has a dtype that no bank uses.
    """
    return {
        name: (
            entry,
            np.frombuffer(data, bank_dtype(entry, name, path), prod(entry.shape), header.start + entry.begin).reshape(
                entry.shape
            ),
        )
        for name, entry in header.entries.items()
    }


def bank_dtype(entry: TensorEntry, name: str, path: Path) -> np.dtype:
    """The NumPy dtype of a tensor in a bank's file; raw bits for BF16.

    Raises:
        CorruptBankError: no bank has tensors of this dtype.
    """
    if entry.dtype not in _BANK_TYPES:
        raise CorruptBankError(f"{path}: tensor {name!r} has the unknown dtype {entry.dtype!r}", _REPAIR)
    return ELEMENT_TYPES[entry.dtype].dtype
