"""A checkpoint, and its matrices, which are read by rows and never as a whole."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from costbank.element_types import ELEMENT_TYPES, to_float32
from costbank.errors import CheckpointError

__all__ = ["Checkpoint", "Matrix", "TensorInfo", "join_rows", "read_bytes", "row_decoder", "same_bytes"]

_COMPARED_ROWS = 4_096


class TensorInfo(NamedTuple):
    """The element type of a tensor, as its file names it (`BF16`, `F8_E4M3`, `Q4_K`), and its shape."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Matrix:
    """A two-dimensional tensor of a checkpoint.

    Attributes:
        name: the tensor's name.
        file: the file that contains it; the first one if several contain parts of it.
        dtype: the element type, as in `TensorInfo`.
        shape: the number of rows, and of elements in a row.
        read: returns the stored bytes of the rows from `start` to `stop`.
        decode: converts such bytes to float32 rows.
    """

    name: str
    file: Path
    dtype: str
    shape: tuple[int, int]
    read: Callable[[int, int], UInt8[np.ndarray, "bytes"]]
    decode: Callable[[UInt8[np.ndarray, "bytes"]], Float32[np.ndarray, "rows dim"]]

    def rows(self, start: int, stop: int) -> Float32[np.ndarray, "rows dim"]:
        """The rows from `start` to `stop` in float32. Only F64 values are rounded."""
        return self.decode(self.read(start, stop))


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk.

    Attributes:
        path: the folder or file that was opened.
        files: the file of each tensor, by the tensor's name. The file may be missing.
        matrix: returns a two-dimensional tensor by its name. Raises `CheckpointError` if it cannot be read.
        describe: returns the element type and the shape of a tensor by its name; None if its file is missing.
        config: `config.json`; empty if there is none.
        missing_files: files that are missing, as the names of the existing files show.
        adapter_config: `adapter_config.json`, which PEFT writes; empty if there is none.
        is_gguf: whether the files are GGUF, where tensors have the names that llama.cpp gives them.
    """

    path: Path
    files: Mapping[str, Path]
    matrix: Callable[[str], Matrix]
    describe: Callable[[str], TensorInfo | None]
    config: Mapping[str, Any] = field(default_factory=dict)
    missing_files: tuple[str, ...] = ()
    adapter_config: Mapping[str, Any] = field(default_factory=dict)
    is_gguf: bool = False


def row_decoder(dtype: str, dim: int) -> Callable[[UInt8[np.ndarray, "bytes"]], Float32[np.ndarray, "rows dim"]]:
    """A function that converts the stored bytes of rows of `dim` elements of a floating-point type to float32."""
    storage = ELEMENT_TYPES[dtype].dtype
    return lambda raw: to_float32(raw.view(storage), dtype).reshape(-1, dim)


def read_bytes(path: Path, begin: int, count: int, tensor: str) -> UInt8[np.ndarray, "bytes"]:
    """Read `count` bytes of the tensor named `tensor` from a file, starting at the offset `begin`.

    Raises:
        CheckpointError: the file is too short.
    """
    raw = np.empty(count, np.uint8)
    with path.open("rb", buffering=0) as file:
        file.seek(begin)
        view, done = raw.data, 0
        while done < count:
            size = file.readinto(view[done:])
            if not size:
                raise CheckpointError(f"{path} ends within the tensor {tensor!r}", "download or copy this file again")
            done += size
    return raw


def join_rows(parts: list[Matrix]) -> Matrix:
    """The rows of several matrices as one matrix. Tensor-parallel training saves heads and embeddings in such parts."""
    if len(parts) == 1:
        return parts[0]
    ends = np.cumsum([part.shape[0] for part in parts])

    def read(start: int, stop: int) -> np.ndarray:
        blocks = []
        for part, end in zip(parts, ends.tolist(), strict=True):
            first = end - part.shape[0]
            if first < stop and start < end:
                blocks.append(part.read(max(start - first, 0), min(stop, end) - first))
        return np.concatenate(blocks) if len(blocks) != 1 else blocks[0]

    first = parts[0]
    return Matrix(first.name, first.file, first.dtype, (int(ends[-1]), first.shape[1]), read, first.decode)


def same_bytes(one: Matrix, other: Matrix) -> bool:
    """Whether the stored bytes of two matrices are equal. Stops at the first block that differs."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    rows = one.shape[0]
    blocks = ((start, min(start + _COMPARED_ROWS, rows)) for start in range(0, rows, _COMPARED_ROWS))
    return all(np.array_equal(one.read(*block), other.read(*block)) for block in blocks)
