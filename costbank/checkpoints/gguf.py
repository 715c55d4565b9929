"""Matrices and metadata in GGUF files, quantized or not, whole or split. The gguf library dequantizes them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from costbank.checkpoints.base import Matrix, TensorInfo, read_bytes, row_decoder
from costbank.checkpoints.gguf_header import GGUFArray, GGUFHeader, GGUFTensor, read_gguf_header
from costbank.element_types import ELEMENT_TYPES, FLOAT_TYPES
from costbank.errors import CheckpointError, require

__all__ = ["GGUFFile", "is_gguf", "split_series"]

_SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")
_AGAIN = "download or copy this file again"


@dataclass(frozen=True)
class GGUFFile:
    """The GGUF files of one model.

    Attributes:
        headers: the header of each file, in order.
        tensors: for the name of each tensor, the header that lists it, and its entry there.
    """

    headers: tuple[GGUFHeader, ...]
    tensors: Mapping[str, tuple[GGUFHeader, GGUFTensor]]

    @classmethod
    def open(cls, path: Path) -> "GGUFFile":
        """Read the headers of a file, or of all files of a split model.

        Raises:
            CheckpointError: a file is cut short, missing from its series, or not GGUF.
            MissingExtraError: gguf is not installed.
        """
        sizes = _block_sizes()
        headers = tuple(read_gguf_header(file) for file in split_series(path))
        tensors: dict[str, tuple[GGUFHeader, GGUFTensor]] = {}
        for header in headers:
            for name, tensor in header.tensors.items():
                if name in tensors:
                    raise CheckpointError(
                        f"tensor {name!r} is in {tensors[name][0].path.name} and in {header.path.name}",
                        "give files of the same model",
                    )
                # The size of a tensor of an unknown type is unknown too. It matters only if the tensor is read.
                if tensor.kind in sizes and tensor.begin + _stored_bytes(tensor, *sizes[tensor.kind]) > header.size:
                    raise CheckpointError(f"{header.path} is cut short: it ends within the tensor {name!r}", _AGAIN)
                tensors[name] = header, tensor
        return cls(headers, tensors)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The first file's metadata: numbers, booleans, strings as bytes, arrays as `GGUFArray`."""
        return self.headers[0].metadata

    def value(self, key: str) -> Any:
        """A number, a boolean or a string by its key; None if the key does not exist.

        Raises:
            CheckpointError: the value is an array.
        """
        value = self.metadata.get(key)
        if isinstance(value, GGUFArray):
            raise CheckpointError(f"{self.headers[0].path}: {key} is an array", _AGAIN)
        return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value

    def strings(self, key: str) -> list[bytes] | None:
        """An array of strings as bytes; None if the key does not exist. Raises `CheckpointError` for other values."""
        return self.headers[0].strings(key)

    def numbers(self, key: str) -> np.ndarray | None:
        """An array of numbers; None if the key does not exist. Raises `CheckpointError` for other values."""
        return self.headers[0].numbers(key)

    def describe(self, name: str) -> TensorInfo:
        """The element type and the shape of a tensor."""
        tensor = self.tensors[name][1]
        return TensorInfo(_type_name(tensor.kind), tensor.shape)

    def matrix(self, name: str) -> Matrix:
        """One matrix.

        Raises:
            CheckpointError: it is not a matrix, or its type is unknown or cannot be dequantized.
        """
        header, tensor = self.tensors[name]
        type_name, where = _type_name(tensor.kind), f"tensor {name!r} in {header.path}"
        if len(tensor.shape) != 2 or not prod(tensor.shape):
            raise CheckpointError(
                f"{where} has the shape {list(tensor.shape)}", "give a matrix with a row for each token"
            )
        if tensor.kind not in (sizes := _block_sizes()):
            raise CheckpointError(
                f"{where} has the type {tensor.kind}, which the installed gguf library does not know",
                "upgrade gguf, or convert the model to another type",
            )
        (rows, dim), (block, block_bytes) = tensor.shape, sizes[tensor.kind]
        if dim % block:
            raise CheckpointError(f"{where} has rows of {dim:,} elements, which {type_name} cannot store", _AGAIN)
        row_bytes = dim // block * block_bytes

        def read(start: int, stop: int) -> np.ndarray:
            return read_bytes(header.path, tensor.begin + start * row_bytes, (stop - start) * row_bytes, name)

        decode = _decoder(tensor.kind, dim, row_bytes, header.big_endian, where)
        decode(read(0, 1))
        return Matrix(name, header.path, type_name, (rows, dim), read, decode)


def is_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def split_series(path: Path) -> tuple[Path, ...]:
    """The files of a split model in order, given any of them; a file that is not split is a series of one.

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
            raise CheckpointError(
                f"{file} is missing: {path.name} is one part of a split model", "put all parts into one folder"
            )
    return series


def _block_sizes() -> Mapping[int, tuple[int, int]]:
    """The number of elements and of bytes in a block, by ggml's code for the type."""
    return require("gguf", "build").GGML_QUANT_SIZES


def _stored_bytes(tensor: GGUFTensor, block: int, block_bytes: int) -> int:
    return prod(tensor.shape) // block * block_bytes


def _type_name(kind: int) -> str:
    """The name of a type, or its code if the library does not know it."""
    try:
        return require("gguf", "build").GGMLQuantizationType(kind).name
    except ValueError:
        return f"type {kind}"


def _decoder(kind: int, dim: int, row_bytes: int, big_endian: bool, where: str) -> Callable[[np.ndarray], np.ndarray]:
    """A function that converts the stored bytes of rows to float32."""
    gguf = require("gguf", "build")
    type_name = _type_name(kind)
    if type_name in FLOAT_TYPES:
        decode, width = row_decoder(type_name, dim), ELEMENT_TYPES[type_name].dtype.itemsize
        if not big_endian:
            return decode
        return lambda raw: decode(np.ascontiguousarray(raw.reshape(-1, width)[:, ::-1]).reshape(-1))
    if big_endian:
        raise CheckpointError(
            f"{where} is quantized as {type_name} in big-endian byte order, which cannot be read",
            "convert the file first: gguf-convert-endian FILE little",
        )

    def dequantize(raw: np.ndarray) -> np.ndarray:
        try:
            rows = gguf.quants.dequantize(raw.reshape(-1, row_bytes), gguf.GGMLQuantizationType(kind))
        except NotImplementedError:
            raise CheckpointError(
                f"{where} has the type {type_name}, which the installed gguf library cannot dequantize",
                "upgrade gguf, or convert the model to another type",
            ) from None
        return np.asarray(rows, np.float32).reshape(-1, dim)

    return dequantize
