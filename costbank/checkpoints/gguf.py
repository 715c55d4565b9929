"""Matrices and tokens in GGUF files, quantised or not, whole or split."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from costbank.checkpoints.base import Matrix
from costbank.errors import CheckpointError, require

__all__ = ["GGUFFile", "is_gguf", "split_series"]

_SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True)
class GGUFFile:
    """One or more GGUF files of one model: its tensors by name, and the metadata of the first file."""

    files: tuple[Path, ...]
    tensors: dict[str, tuple[Path, Any]]
    fields: Any

    @classmethod
    def open(cls, path: Path) -> "GGUFFile":
        """Open a file, or the series that a split file belongs to.

        Raises:
            CheckpointError: a file is cut short, missing from its series, or no GGUF file.
            MissingExtraError: gguf is not installed.
        """
        gguf = require("gguf", "build")
        files = split_series(path)
        tensors, fields = {}, None
        for file in files:
            try:
                reader = gguf.GGUFReader(file)
            except Exception as error:  # the reader runs into whatever a broken file leads it to
                raise CheckpointError(
                    f"{file} is cut short or no GGUF file: {str(error)[:160] or type(error).__name__}",
                    "download or copy this file again",
                ) from None
            fields = fields if fields is not None else reader.fields
            tensors |= {tensor.name: (file, tensor) for tensor in reader.tensors}
        return cls(files, tensors, fields)

    def value(self, key: str) -> Any:
        """A metadata value, None where there is none."""
        return self.fields[key].contents() if key in self.fields else None

    def matrix(self, name: str) -> Matrix:
        """One matrix.

        Raises:
            CheckpointError: it is no matrix, or its quantisation is unknown.
        """
        gguf = require("gguf", "build")
        file, tensor = self.tensors[name]
        if len(tensor.shape) != 2 or not tensor.n_elements:
            raise CheckpointError(
                f"tensor {name!r} in {file} has the shape {tensor.shape.tolist()}", "a row for each token is needed"
            )
        dim, rows = map(int, tensor.shape)
        kind = tensor.tensor_type
        data = tensor.data.reshape(rows, -1)

        def decode(raw: np.ndarray) -> np.ndarray:
            stored = raw.reshape(-1, data.shape[1] * data.itemsize)
            try:
                return np.asarray(gguf.quants.dequantize(stored.view(data.dtype), kind), np.float32).reshape(-1, dim)
            except NotImplementedError:
                raise CheckpointError(
                    f"tensor {name!r} in {file} is quantised as {kind.name}, which this gguf library cannot read",
                    "upgrade gguf, or convert the model to another type",
                ) from None

        decode(data[:1].view(np.uint8).reshape(-1))
        return Matrix(name, file, kind.name, (rows, dim), lambda i, j: data[i:j].view(np.uint8).reshape(-1), decode)


def is_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def split_series(path: Path) -> tuple[Path, ...]:
    """The files of a split model in order, from any one of them; a whole file is a series of one.

    Raises:
        CheckpointError: a file of the series is missing.
    """
    match = _SPLIT.fullmatch(path.name)
    if not match:
        return (path,)
    series = tuple(path.with_name(f"{match[1]}-{number:05d}-of-{match[3]}.gguf") for number in
                   range(1, int(match[3]) + 1))  # fmt: skip
    for file in series:
        if not file.is_file():
            raise CheckpointError(f"{file} is missing; {path.name} is one part of a split model", "put all parts there")
    return series
