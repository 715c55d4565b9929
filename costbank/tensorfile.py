"""Safetensors files, written as a stream and read through a memory map.

The safetensors library writes only whole tensors and knows no BF16 in NumPy. Heads of gigabytes need neither
limit, so this module writes rows as they come, hashes them on the way, and maps any row range without a copy.
What the tensors mean is not known here.
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
_HASHED_LATER = 2
_ANEW = "the file is damaged; make it anew"


@dataclass(frozen=True)
class TensorSpec:
    """A tensor before its data: its safetensors dtype name, its shape, and its size in bytes."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
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
    """A file's header: where its data starts, in bytes, and its tensors by name."""

    start: int
    entries: dict[str, TensorEntry]


@dataclass(frozen=True)
class MappedTensor:
    """A tensor inside a mapped file, from byte `begin` on. `data` is read-only; BF16 shows as the raw 16 bits."""

    spec: TensorSpec
    data: np.ndarray
    mapped: mmap.mmap
    path: Path
    begin: int

    def float32(self, rows: np.ndarray | slice) -> Float32[np.ndarray, "..."]:
        """The chosen rows of a floating-point tensor as float32; the values are the stored ones, exactly."""
        return to_float32(self.data[rows], self.spec.dtype)

    @contextmanager
    def streamed(self, most_bytes: int = 256 << 20) -> Iterator[Callable[[np.ndarray | slice], np.ndarray]]:
        """`float32` for passes over gigabytes, in bounded memory.

        A slice is mapped; after `most_bytes`, the pages that were read are released, and views of them stay valid.
        Rows by number are read instead, since Linux maps up to two megabytes around each row. A tensor of at most
        `most_bytes` is only mapped.
        """
        if self.data.nbytes <= most_bytes:
            yield self.float32
            return
        mapped_bytes = 0
        with self.path.open("rb", buffering=0) as file:

            def rows(chosen: np.ndarray | slice) -> Float32[np.ndarray, "..."]:
                nonlocal mapped_bytes
                if not isinstance(chosen, slice):
                    return to_float32(self._read(file.fileno(), chosen), self.spec.dtype)
                if mapped_bytes > most_bytes:
                    self.release()
                    mapped_bytes = 0
                block = self.float32(chosen)
                mapped_bytes += block.nbytes
                return block

            yield rows

    def _read(self, descriptor: int, ids: Integer[np.ndarray, "rows"]) -> np.ndarray:
        rows = np.empty((len(ids), *self.data.shape[1:]), self.data.dtype)
        if not rows.size:
            return rows
        buffer, row_bytes, at = rows.data.cast("B"), rows[0].nbytes, 0
        for row in ids.tolist():
            if os.preadv(descriptor, [buffer[at : at + row_bytes]], self.begin + row * row_bytes) != row_bytes:
                raise CorruptBankError(f"{self.path} ends within row {row:,}", "the file is damaged; make it anew")
            at += row_bytes
        return rows

    def release(self) -> None:
        """Release the pages that were read, so that a pass over gigabytes does not count as memory in use."""
        self.mapped.madvise(mmap.MADV_DONTNEED)


def write_tensors(path: Path, tensors: Mapping[str, tuple[TensorSpec, Iterable[np.ndarray]]]) -> FileDigest:
    """Write and fsync a safetensors file from blocks of raw data, holding one block at a time.

    The tensors are laid out in the order given; give those with the widest elements first, so that all are aligned.

    Raises:
        ShapeError: a tensor's blocks hold more or fewer bytes than its spec.
    """
    header, begin = {}, 0
    for name, (spec, _) in tensors.items():
        header[name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [begin, begin + spec.nbytes]}
        begin += spec.nbytes
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    digest = hashlib.sha256()
    with path.open("xb", buffering=0) as file, ThreadPoolExecutor(1, "costbank-hash") as hashing:
        position, hashed = 0, deque[Future[None]]()

        def put(data: bytes | memoryview) -> None:
            nonlocal position
            hashed.append(hashing.submit(digest.update, data))
            while data:
                data = memoryview(data)[file.write(data) :]
            position = file.tell()
            if len(hashed) > _HASHED_LATER:
                hashed.popleft().result()

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
                    f"tensor {name!r} of shape {list(spec.shape)} takes {spec.nbytes} bytes, but {written} came",
                    "give every row once",
                )
        os.fsync(file.fileno())
    return FileDigest(position, digest.hexdigest())


def read_header(path: Path, error: type[CostbankError] = CorruptBankError, hint: str = _ANEW) -> TensorHeader:
    """Read a safetensors header and check it against the file's size, as strictly as the safetensors library does.

    Tensors must cover the data without holes or overlaps, to the file's last byte. Two tensors of one name are
    refused, where the library takes the last; an unknown dtype is accepted, where the library refuses the file: its
    tensor cannot be read, but the others can.

    Raises:
        error: the header is broken, or does not describe the file exactly.
    """

    with path.open("rb") as file:
        return parse_header(file, os.fstat(file.fileno()).st_size, path, error, hint)


def parse_header(
    file: BinaryIO, size: int, path: Path, error: type[CostbankError] = CorruptBankError, hint: str = _ANEW
) -> TensorHeader:
    """`read_header` for a file that is open at its start, or bytes in memory; `path` is for messages alone."""

    def broken(why: str, what_to_do: str = "") -> CostbankError:
        return error(f"{path}: {why}", what_to_do or hint)

    if size < 8:
        raise broken("shorter than a safetensors header")
    header_size = int.from_bytes(file.read(8), "little")
    if header_size > min(size - 8, _MOST_HEADER_BYTES):
        raise broken(f"its header claims {header_size} bytes, and the file has {size}")
    encoded = file.read(header_size)
    try:
        entries = _entries(encoded)
    except (ValueError, RecursionError) as problem:
        why = f": {problem}" if isinstance(problem, _HeaderError) else ""
        raise broken(f"its header is not a safetensors header{why}") from None
    start, taken = 8 + header_size, 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if not _fits(entry) or start + entry.end > size:
            raise broken(
                f"tensor {name!r} claims bytes {entry.begin} to {entry.end}, which do not fit its shape or the file"
            )
        if entry.begin < taken:
            raise broken(f"tensor {name!r} shares bytes with another")
        if entry.begin > taken:
            raise broken(
                f"bytes {taken} to {entry.begin} of its data, before tensor {name!r}, belong to no tensor",
                f"{hint}; if it was written so, save it again with safetensors.save_file: no reader accepts such holes",
            )
        taken = entry.end
    if start + taken < size:
        raise broken(
            f"{size - start - taken:,} bytes follow its last tensor, so it was changed after it was written",
            f"{hint}; if you are sure that only its end is wrong, cut it off: "
            f"truncate -s {start + taken} {shlex.quote(str(path))}",
        )
    return TensorHeader(start, entries)


class _HeaderError(ValueError):
    """What is wrong in a header's JSON."""


def _entries(encoded: bytes) -> dict[str, TensorEntry]:
    """The tensors in a header's JSON, which is read as strictly as serde reads it into the library's types.

    Raises:
        ValueError: it is not JSON in UTF-8, or does not have this form.
    """
    pairs = json.loads(
        encoded.decode(), object_pairs_hook=_Pairs, parse_int=_whole_number, parse_constant=_not_a_number
    )
    if not isinstance(pairs, _Pairs) or not _writable(pairs, encoded):
        raise _HeaderError("not an object of tensors")
    entries: dict[str, TensorEntry] = {}
    metadata = 0
    for name, value in pairs:
        if name == "__metadata__":
            metadata += 1
            texts = isinstance(value, _Pairs) and all(isinstance(text, str) for _, text in value)
            if metadata > 1 or not (value is None or texts):
                raise _HeaderError("__metadata__ is not an object of strings")
            continue
        if name in entries:
            raise _HeaderError(f"it holds tensor {name!r} twice")
        entries[name] = _entry(name, value)
    return entries


def _entry(name: str, value: object) -> TensorEntry:
    fields = [(key, part) for key, part in value if key in _FIELDS] if isinstance(value, _Pairs) else []
    if sorted(key for key, _ in fields) != sorted(_FIELDS):
        raise _HeaderError(f"tensor {name!r} does not have one dtype, shape and data_offsets")
    dtype, shape, offsets = (dict(fields)[key] for key in _FIELDS)
    sizes_only = all(_is_list_of_sizes(part) for part in (shape, offsets))
    if not isinstance(dtype, str) or not sizes_only or len(offsets) != 2:
        raise _HeaderError(f"tensor {name!r} has a dtype, shape or data_offsets of the wrong type")
    return TensorEntry(dtype, tuple(shape), *offsets)


class _Pairs(list[tuple[str, Any]]):
    """A JSON object that keeps repeated keys."""


def _whole_number(text: str) -> int | float:
    return -0.0 if text == "-0" else int(text)


def _not_a_number(text: str) -> float:
    raise _HeaderError(f"{text} is not JSON")


def _is_list_of_sizes(value: object) -> bool:
    return type(value) is list and all(type(size) is int and 0 <= size <= _MOST_SIZE for size in value)


def _writable(value: object, encoded: bytes) -> bool:
    """Whether nothing is nested too deep, and no string holds half of a surrogate pair."""
    if b"\\u" in encoded:
        json.dumps(value, ensure_ascii=False).encode()
    layer = [value]
    for _ in range(_MOST_DEPTH):
        layer = [part for whole in layer if isinstance(whole, list | tuple) for part in whole]
        if not layer:
            return True
    return False


def _fits(entry: TensorEntry) -> bool:
    """Whether a tensor's bytes are as many as its dtype and shape need."""
    elements, known = 1, ELEMENT_TYPES.get(entry.dtype)
    for size in entry.shape:
        elements *= size
        if elements > _MOST_SIZE:
            return False
    if known is None:
        return entry.begin <= entry.end
    return elements * known.bits <= _MOST_SIZE and (entry.end - entry.begin) * 8 == elements * known.bits


def map_tensors(path: Path) -> dict[str, MappedTensor]:
    """Map a safetensors file of a bank; no tensor byte is read before it is used.

    Raises:
        CorruptBankError: the header is broken, or claims bytes that the file does not have.
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
    """The tensors of a file that is mapped or in memory, as read-only arrays without a copy.

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
    """The NumPy dtype of a tensor of a bank; BF16 as its raw 16 bits."""
    if entry.dtype not in _BANK_TYPES:
        raise CorruptBankError(f"{path}: tensor {name!r} has the unknown dtype {entry.dtype!r}", "make it anew")
    return ELEMENT_TYPES[entry.dtype].dtype
