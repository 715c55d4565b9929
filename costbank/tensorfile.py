"""Safetensors files, written as a stream and read through a memory map.

The safetensors library writes only whole tensors and knows no BF16 in NumPy. Heads of gigabytes need neither
limit, so this module writes rows as they come, hashes them on the way, and maps any row range without a copy.
It holds no opinion about what the tensors mean.
"""

import hashlib
import json
import mmap
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Integer

from costbank.errors import CorruptBankError, CostbankError, ShapeError

__all__ = [
    "FileDigest",
    "MappedTensor",
    "TensorEntry",
    "TensorHeader",
    "TensorSpec",
    "from_float32",
    "map_tensors",
    "read_header",
    "sha256_file",
    "write_tensors",
]

_NUMPY_DTYPES = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # the upper half of a float32's bits
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "U8": np.dtype("u1"),
}
_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32,
         "U16": 16, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8}  # fmt: skip
_MOST_HEADER_BYTES = 100 << 20
_HASH_CHUNK_BYTES = 8 << 20
_HASHED_LATER = 2


@dataclass(frozen=True)
class TensorSpec:
    """A tensor before its data: its safetensors dtype name, its shape, and its size in bytes."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * _NUMPY_DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class TensorEntry:
    """What a header says of a tensor; `begin` and `end` count bytes from the start of the data."""

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
class FileDigest:
    """A finished file's size in bytes and its sha256 in hexadecimal."""

    size: int
    sha256: str


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
        return _widened(self.data[rows], self.spec.dtype)

    @contextmanager
    def streamed(self, most_bytes: int = 256 << 20) -> Iterator[Callable[[np.ndarray | slice], np.ndarray]]:
        """`float32` for passes over gigabytes, in bounded memory.

        A slice is mapped, and when so many bytes were, the pages that were read are let go; views of them stay good.
        Rows by number are read instead: Linux maps up to two megabytes around each row that is looked at. A tensor
        that is no larger than `most_bytes` is mapped and nothing else.
        """
        if self.data.nbytes <= most_bytes:
            yield self.float32
            return
        mapped_bytes = 0
        with self.path.open("rb", buffering=0) as file:

            def rows(chosen: np.ndarray | slice) -> Float32[np.ndarray, "..."]:
                nonlocal mapped_bytes
                if not isinstance(chosen, slice):
                    return _widened(self._read(file.fileno(), chosen), self.spec.dtype)
                if mapped_bytes > most_bytes:
                    self.release()
                    mapped_bytes = 0
                found = self.float32(chosen)
                mapped_bytes += found.nbytes
                return found

            yield rows

    def _read(self, descriptor: int, ids: Integer[np.ndarray, "rows"]) -> np.ndarray:
        found = np.empty((len(ids), *self.data.shape[1:]), self.data.dtype)
        if not found.size:
            return found
        room, row_bytes, at = found.data.cast("B"), found[0].nbytes, 0
        for row in ids.tolist():
            if os.preadv(descriptor, [room[at : at + row_bytes]], self.begin + row * row_bytes) != row_bytes:
                raise CorruptBankError(f"{self.path} ends within row {row:,}", "the file is damaged; make it anew")
            at += row_bytes
        return found

    def release(self) -> None:
        """Let go of the pages that were read, so that a pass over gigabytes does not count as memory in use."""
        self.mapped.madvise(mmap.MADV_DONTNEED)


def from_float32(rows: Float32[np.ndarray, "..."], dtype: str) -> np.ndarray:
    """Round float32 to a safetensors dtype, to nearest even, BF16 as its raw bits."""
    if dtype == "BF16":
        bits = np.ascontiguousarray(rows, np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return rows.astype(_NUMPY_DTYPES[dtype], copy=False)


def _widened(stored: np.ndarray, dtype: str) -> Float32[np.ndarray, "..."]:
    if dtype == "BF16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32, copy=False)


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
                data = np.ascontiguousarray(block, _NUMPY_DTYPES[spec.dtype]).data
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


def read_header(
    path: Path, error: type[CostbankError] = CorruptBankError, hint: str = "the file is damaged; make it anew"
) -> TensorHeader:
    """Read a safetensors header and hold it against the file's size. Dtypes that are not known are passed over.

    Raises:
        error: the header is broken, claims bytes that the file does not have, or lets tensors share bytes.
    """

    def broken(why: str) -> CostbankError:
        return error(f"{path}: {why}", hint)

    size = path.stat().st_size
    if size < 8:
        raise broken("shorter than a safetensors header")
    with path.open("rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
        if header_size > min(size - 8, _MOST_HEADER_BYTES):
            raise broken(f"its header claims {header_size} bytes, and the file has {size}")
        encoded = file.read(header_size)
    try:
        header = json.loads(encoded)
        header.pop("__metadata__", None)
        entries = {
            name: TensorEntry(str(entry["dtype"]), tuple(map(int, entry["shape"])), *map(int, entry["data_offsets"]))
            for name, entry in header.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise broken("its header is no safetensors header") from None
    start, taken = 8 + header_size, 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        bits = _BITS.get(entry.dtype)
        fits = bits is None or (entry.end - entry.begin) * 8 == prod(entry.shape) * bits
        if min(entry.shape, default=0) < 0 or entry.begin < 0 or not fits or start + entry.end > size:
            raise broken(
                f"tensor {name!r} claims bytes {entry.begin} to {entry.end}, which do not fit its shape or the file"
            )
        if entry.begin < taken:
            raise broken(f"tensor {name!r} shares bytes with another")
        taken = entry.end
    return TensorHeader(start, entries)


def map_tensors(path: Path) -> dict[str, MappedTensor]:
    """Map a safetensors file of a bank; no tensor byte is read before it is used.

    Raises:
        CorruptBankError: the header is broken, or claims bytes that the file does not have.
    """
    header = read_header(path)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    result = {}
    for name, entry in header.entries.items():
        dtype = _NUMPY_DTYPES.get(entry.dtype)
        if dtype is None:
            raise CorruptBankError(f"{path}: tensor {name!r} has the unknown dtype {entry.dtype!r}", "make it anew")
        begin = header.start + entry.begin
        data = np.frombuffer(mapped, dtype, prod(entry.shape), begin).reshape(entry.shape)
        result[name] = MappedTensor(TensorSpec(entry.dtype, entry.shape), data, mapped, path, begin)
    return result


def sha256_file(path: Path) -> FileDigest:
    """Size and sha256 of a whole file, read in chunks."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return FileDigest(size, digest.hexdigest())
