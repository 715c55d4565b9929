"""A checkpoint's matrices, read by rows and never as a whole."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from costbank.element_types import ELEMENT_TYPES, to_float32
from costbank.errors import CheckpointError

__all__ = ["Checkpoint", "Matrix", "joined_rows", "read_bytes", "row_decoder", "same_bytes"]

_COMPARED_ROWS = 4_096


@dataclass(frozen=True)
class Matrix:
    """A two-dimensional tensor of a checkpoint.

    Attributes:
        name: the tensor's name.
        file: the file that holds it; the first of them where several hold parts of it.
        dtype: the element type as the container names it: `BF16`, `F8_E4M3`, `Q4_K`.
        shape: rows, and elements of a row.
        read: the stored bytes of the rows from `start` to `stop`.
        decode: such bytes as float32 rows.
    """

    name: str
    file: Path
    dtype: str
    shape: tuple[int, int]
    read: Callable[[int, int], UInt8[np.ndarray, "bytes"]]
    decode: Callable[[UInt8[np.ndarray, "bytes"]], Float32[np.ndarray, "rows dim"]]

    def rows(self, start: int, stop: int) -> Float32[np.ndarray, "rows dim"]:
        """The rows from `start` to `stop`: the stored values, rounded only where they are F64."""
        return self.decode(self.read(start, stop))


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk.

    Attributes:
        path: what was opened: a folder or a file.
        names: every tensor name and the file that should hold it; these may be missing until one is asked for.
        config: `config.json`, or the metadata that stands for it; empty where there is none.
        matrix: a two-dimensional tensor by its name. Raises `CheckpointError` where it cannot be read.
        describe: a tensor's element type and shape by its name; None where the file that should hold it is not there.
        missing: files that should be there by the names of those that are.
        adapter: `adapter_config.json`, which PEFT writes; empty where there is none.
        gguf: whether this is GGUF, whose names are those of llama.cpp.
    """

    path: Path
    names: Mapping[str, Path]
    matrix: Callable[[str], Matrix]
    describe: Callable[[str], tuple[str, tuple[int, ...]] | None]
    config: Mapping[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    adapter: Mapping[str, Any] = field(default_factory=dict)
    gguf: bool = False


def row_decoder(dtype: str, dim: int) -> Callable[[UInt8[np.ndarray, "bytes"]], Float32[np.ndarray, "rows dim"]]:
    """What turns the stored bytes of whole rows of `dim` elements of a floating-point type into float32."""
    storage = ELEMENT_TYPES[dtype].dtype
    return lambda raw: to_float32(raw.view(storage), dtype).reshape(-1, dim)


def read_bytes(path: Path, begin: int, count: int, tensor: str) -> UInt8[np.ndarray, "bytes"]:
    """`count` bytes of a file from `begin` on.

    Raises:
        CheckpointError: the file ends before; `tensor` names what is being read.
    """
    raw = np.empty(count, np.uint8)
    with path.open("rb", buffering=0) as file:
        file.seek(begin)
        view, taken = raw.data, 0
        while taken < count:
            got = file.readinto(view[taken:])
            if not got:
                raise CheckpointError(f"{path} ends within the tensor {tensor!r}", "download or copy this file again")
            taken += got
    return raw


def joined_rows(parts: list[Matrix]) -> Matrix:
    """One matrix of the rows of several, as tensor-parallel training saves a vocabulary in parts."""
    if len(parts) == 1:
        return parts[0]
    ends = np.cumsum([part.shape[0] for part in parts])

    def read(start: int, stop: int) -> np.ndarray:
        pieces = []
        for part, end in zip(parts, ends.tolist(), strict=True):
            first = end - part.shape[0]
            if first < stop and start < end:
                pieces.append(part.read(max(start - first, 0), min(stop, end) - first))
        return np.concatenate(pieces) if len(pieces) != 1 else pieces[0]

    first = parts[0]
    return Matrix(first.name, first.file, first.dtype, (int(ends[-1]), first.shape[1]), read, first.decode)


def same_bytes(one: Matrix, other: Matrix) -> bool:
    """Whether two matrices are stored as the same bytes; stops at the first difference."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    return all(np.array_equal(one.read(*block), other.read(*block)) for block in _blocks(one.shape[0]))


def _blocks(rows: int) -> Iterator[tuple[int, int]]:
    for start in range(0, rows, _COMPARED_ROWS):
        yield start, min(start + _COMPARED_ROWS, rows)
