"""Matrices in safetensors files: the header is read, then only the rows that are needed."""

from math import prod
from pathlib import Path

import numpy as np

from costbank.checkpoints.base import Matrix, TensorInfo, read_bytes, row_decoder
from costbank.element_types import ELEMENT_TYPES, FLOAT_TYPES
from costbank.errors import CheckpointError
from costbank.tensorfile import read_header

__all__ = ["safetensors_infos", "safetensors_matrix"]

_DAMAGED = "download or copy this file again"


def safetensors_infos(path: Path) -> dict[str, TensorInfo]:
    """The element type and the shape of each tensor of a file, by name.

    Raises:
        CheckpointError: the file is cut short, or its header does not describe it.
    """
    entries = read_header(path, CheckpointError, _DAMAGED).entries
    return {name: TensorInfo(entry.dtype, entry.shape) for name, entry in entries.items()}


def safetensors_matrix(path: Path, name: str) -> Matrix:
    """One matrix of a file.

    Raises:
        CheckpointError: the file is broken, or the tensor is missing, not a matrix, or not floating point.
    """
    header = read_header(path, CheckpointError, _DAMAGED)
    if name not in header.entries:
        raise CheckpointError(f"{path} has no tensor {name!r}", "download the index and this file again")
    entry = header.entries[name]
    if len(entry.shape) != 2 or not prod(entry.shape):
        raise CheckpointError(
            f"tensor {name!r} in {path} has the shape {list(entry.shape)}", "give a matrix with a row for each token"
        )
    if entry.dtype not in FLOAT_TYPES:
        raise CheckpointError(
            f"tensor {name!r} in {path} has the dtype {entry.dtype}, which is not floating point",
            "dequantize the checkpoint first, or choose another tensor with --tensor",
        )
    _refuse_block_scales(path, name, entry.shape[0], {key: e.shape for key, e in header.entries.items()})
    rows, dim = entry.shape
    row_bytes = dim * ELEMENT_TYPES[entry.dtype].dtype.itemsize

    def read(start: int, stop: int) -> np.ndarray:
        return read_bytes(path, header.start + entry.begin + start * row_bytes, (stop - start) * row_bytes, name)

    return Matrix(name, path, entry.dtype, (rows, dim), read, row_decoder(entry.dtype, dim))


def _refuse_block_scales(path: Path, name: str, rows: int, shapes: dict[str, tuple[int, ...]]) -> None:
    """Refuse a weight with a scale for each block. One scale for the tensor or for each row changes no cosine."""
    for suffix in ("_scale_inv", "_scale"):
        if prod(shapes.get(name + suffix, ())) not in (1, rows):
            raise CheckpointError(
                f"tensor {name!r} in {path} is scaled in blocks by {name + suffix!r}",
                "dequantize the checkpoint first",
            )
