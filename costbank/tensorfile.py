"""Safetensors files, written as a stream and read through a memory map.

The safetensors library writes only whole tensors and knows no BF16 in NumPy. Heads of gigabytes need neither
limit, so this module writes rows as they come, hashes them on the way, and maps any row range without a copy.
It holds no opinion about what the tensors mean.
"""

import hashlib
import json
import mmap
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from costbank.errors import CorruptBankError, CostbankError, ShapeError

__all__ = ["FileDigest", "MappedTensor", "TensorSpec", "from_float32", "map_tensors", "sha256_file", "write_tensors"]

_NUMPY_DTYPES = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # the upper half of a float32's bits
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "U8": np.dtype("u1"),
}
_MOST_HEADER_BYTES = 100 << 20
_HASH_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True)
class TensorSpec:
    """A tensor before its data: its safetensors dtype name, its shape, and its size in bytes."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * _NUMPY_DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class FileDigest:
    """A finished file's size in bytes and its sha256 in hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True)
class MappedTensor:
    """A tensor inside a mapped file. `data` is read-only; BF16 shows as the raw 16 bits."""

    spec: TensorSpec
    data: np.ndarray

    def float32(self, rows: np.ndarray | slice) -> Float32[np.ndarray, "..."]:
        """The chosen rows of a floating-point tensor as float32; the values are the stored ones, exactly."""
        chosen = self.data[rows]
        if self.spec.dtype == "BF16":
            return (chosen.astype(np.uint32) << 16).view(np.float32)
        return chosen.astype(np.float32, copy=False)


def from_float32(rows: Float32[np.ndarray, "..."], dtype: str) -> np.ndarray:
    """Round float32 to a safetensors dtype, to nearest even, BF16 as its raw bits."""
    if dtype == "BF16":
        bits = np.ascontiguousarray(rows, np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return rows.astype(_NUMPY_DTYPES[dtype], copy=False)


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
    with path.open("xb") as file:

        def put(data: bytes | memoryview) -> None:
            file.write(data)
            digest.update(data)

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
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
    return FileDigest(size, digest.hexdigest())


def map_tensors(path: Path, error: type[CostbankError] = CorruptBankError) -> dict[str, MappedTensor]:
    """Map a safetensors file; no tensor byte is read before it is used.

    Raises:
        error: the header is broken, or claims bytes that the file does not have.
    """

    def broken(why: str) -> CostbankError:
        return error(f"{path}: {why}", "the file is damaged or no safetensors file; make it anew")

    size = path.stat().st_size
    if size < 8:
        raise broken("shorter than a safetensors header")
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    header_size = int.from_bytes(mapped[:8], "little")
    if header_size > min(size - 8, _MOST_HEADER_BYTES):
        raise broken(f"its header claims {header_size} bytes, the file has {size}")
    try:
        header = json.loads(mapped[8 : 8 + header_size])
        header.pop("__metadata__", None)
        tensors = {
            name: (TensorSpec(str(entry["dtype"]), tuple(map(int, entry["shape"]))), *map(int, entry["data_offsets"]))
            for name, entry in header.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise broken("its header is no safetensors header") from None
    start = 8 + header_size
    result = {}
    for name, (spec, begin, end) in tensors.items():
        dtype = _NUMPY_DTYPES.get(spec.dtype)
        if dtype is None:
            raise broken(f"tensor {name!r} has the unknown dtype {spec.dtype!r}")
        if min(spec.shape, default=0) < 0 or begin < 0 or end - begin != spec.nbytes or start + end > size:
            raise broken(f"tensor {name!r} claims bytes {begin} to {end}, which do not fit its shape or the file")
        data = np.frombuffer(mapped, dtype, prod(spec.shape), start + begin).reshape(spec.shape)
        result[name] = MappedTensor(spec, data)
    return result


def sha256_file(path: Path) -> FileDigest:
    """Size and sha256 of a whole file, read in chunks."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return FileDigest(size, digest.hexdigest())
