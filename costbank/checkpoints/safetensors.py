"""Matrices in safetensors files: the header is read, then only the rows that are needed."""

from math import prod
from pathlib import Path

import numpy as np

from costbank.checkpoints.base import Matrix, read_bytes, row_decoder
from costbank.element_types import ELEMENT_TYPES, FLOAT_TYPES
from costbank.errors import CheckpointError
from costbank.tensorfile import read_header

__all__ = ["safetensors_facts", "safetensors_matrix"]

_DAMAGED = "download or copy this file again"


def safetensors_facts(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The element type and the shape of a file's tensors by name.

    Raises:
        CheckpointError: the file is cut short, or its header does not describe it.
    """
    entries = read_header(path, CheckpointError, _DAMAGED).entries
    return {name: (entry.dtype, entry.shape) for name, entry in entries.items()}


def safetensors_matrix(path: Path, name: str) -> Matrix:
    """One matrix of a file.

    Raises:
        CheckpointError: the file is broken, or the tensor is not there, no matrix, or not of floating point.
    """
    header = read_header(path, CheckpointError, _DAMAGED)
    if name not in header.entries:
        raise CheckpointError(f"{path} holds no tensor {name!r}", "the index and the file do not belong together")
    entry = header.entries[name]
    if len(entry.shape) != 2 or not prod(entry.shape):
        raise CheckpointError(
            f"tensor {name!r} in {path} has the shape {list(entry.shape)}", "a row for each token is needed"
        )
    if entry.dtype not in FLOAT_TYPES:
        raise CheckpointError(
            f"tensor {name!r} in {path} is of dtype {entry.dtype}, which is not floating point",
            "dequantise the checkpoint first, or name another tensor with --tensor",
        )
    _refuse_block_scales(path, name, entry.shape[0], {key: e.shape for key, e in header.entries.items()})
    rows, dim = entry.shape
    row_bytes = dim * ELEMENT_TYPES[entry.dtype].dtype.itemsize

    def read(start: int, stop: int) -> np.ndarray:
        return read_bytes(path, header.start + entry.begin + start * row_bytes, (stop - start) * row_bytes, name)

    return Matrix(name, path, entry.dtype, (rows, dim), read, row_decoder(entry.dtype, dim))


def _refuse_block_scales(path: Path, name: str, rows: int, shapes: dict[str, tuple[int, ...]]) -> None:
    """A scale for the tensor or for each row changes no cosine; one for each block does."""
    for suffix in ("_scale_inv", "_scale"):
        if prod(shapes.get(name + suffix, ())) not in (1, rows):
            raise CheckpointError(
                f"tensor {name!r} in {path} is scaled in blocks by {name + suffix!r}",
                "dequantise the checkpoint first",
            )
