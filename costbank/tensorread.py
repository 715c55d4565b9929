"""Safetensors files read without a memory map, for processes that must survive changes to the files.

A process that reads a mapped page of a truncated file is killed (SIGBUS), and checking the size beforehand does not
prevent that. Here small tensors are copied into memory, and rows are read from a file that stays open: a short read, or
a write to the file since it was opened, is an error.
"""

import os
import time
import weakref
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Integer

from costbank.element_types import to_float32
from costbank.errors import CorruptBankError
from costbank.tensorfile import TensorSpec, bank_dtype, parse_header, tensor_views

__all__ = ["ChangedFileError", "FileTensor", "LoadedTensor", "load_tensors", "open_tensors"]

_HINT = "try again once the file is complete"
_TICK_SECONDS = 0.02
_MOST_TICKS = 50


class ChangedFileError(CorruptBankError):
    """A file was written to while it was being read, or is being written now."""

    title = "A bank's file is being replaced"
    http_status = 503


@dataclass(frozen=True)
class LoadedTensor:
    """A tensor in memory. `data` is read-only; elements of BF16 are raw bits."""

    spec: TensorSpec
    data: np.ndarray

    def float32(self, rows: np.ndarray | slice) -> Float32[np.ndarray, "..."]:
        """These rows of a floating-point tensor as float32."""
        return to_float32(self.data[rows], self.spec.dtype)

    def release(self) -> None:
        """Do nothing: the tensor stays in memory while it is referenced."""


class FileTensor:
    """A tensor in an open file, at byte `begin`; every read is checked."""

    def __init__(self, spec: TensorSpec, dtype: np.dtype, file: "_OpenFile", begin: int) -> None:
        self.spec = spec
        self._dtype, self._file, self._begin = dtype, file, begin
        self._row_bytes = prod(spec.shape[1:]) * dtype.itemsize

    def float32(self, rows: Integer[np.ndarray, "rows"] | slice) -> Float32[np.ndarray, "..."]:
        """These rows as float32.

        Raises:
            ChangedFileError: the file was written to since it was opened.
        """
        if isinstance(rows, slice):
            start, stop, step = rows.indices(self.spec.shape[0])
            count, ranges = max(0, stop - start), [(start, max(0, stop - start))]
            if step != 1:
                return self.float32(np.arange(start, stop, step))
        else:
            count, ranges = len(rows), [(row, 1) for row in rows.tolist()]
        stored = np.empty((count, *self.spec.shape[1:]), self._dtype)
        if stored.size:
            buffer, position = stored.data.cast("B"), 0
            for first, length in ranges:
                size = length * self._row_bytes
                self._file.read_into(buffer[position : position + size], self._begin + first * self._row_bytes)
                position += size
            self._file.check_unchanged()
        return to_float32(stored, self.spec.dtype)

    def release(self) -> None:
        """Do nothing: no rows are in memory."""


def load_tensors(data: bytes, path: Path) -> dict[str, LoadedTensor]:
    """The tensors of a safetensors file in memory; `path` is used only in messages.

    Raises:
        CorruptBankError: the header is not valid, or does not describe the file exactly.
    """
    header = parse_header(BytesIO(data), len(data), path)
    return {
        name: LoadedTensor(TensorSpec(entry.dtype, entry.shape), view)
        for name, (entry, view) in tensor_views(header, data, path).items()
    }


def open_tensors(path: Path) -> dict[str, FileTensor]:
    """The tensors of a safetensors file, which stays open as long as one of them is referenced.

    Raises:
        CorruptBankError: the header is not valid, or does not describe the file exactly.
        ChangedFileError: the file is being written.
    """
    file = _OpenFile(path)
    with path.open("rb") as header_file:
        header = parse_header(header_file, file.size, path)
    file.check_unchanged()
    return {
        name: FileTensor(
            TensorSpec(entry.dtype, entry.shape), bank_dtype(entry, name, path), file, header.start + entry.begin
        )
        for name, entry in header.entries.items()
    }


class _OpenFile:
    """A file descriptor, and the state of the file when it was opened.

    The time of a file's last change (ctime, which programs cannot set) has a resolution of a few milliseconds. A second
    change within that time would be undetected, so opening waits until the last change is older.

    Removing the file's last name changes that time too, but no byte. Then the time of the last write (mtime) decides.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        self._state = self._current_state()
        for _ in range(_MOST_TICKS):
            if abs(time.time() - self._state[-1] / 1e9) > _TICK_SECONDS:
                break
            time.sleep(_TICK_SECONDS)
            self._state = self._current_state()
        else:
            raise ChangedFileError(f"{path} is being written", _HINT)
        self.size = self._state[2]

    def read_into(self, buffer: memoryview, offset: int) -> None:
        while buffer:
            count = os.preadv(self._descriptor, [buffer], offset)
            if not count:
                raise ChangedFileError(f"{self._path} ends at byte {offset:,}", _HINT)
            buffer, offset = buffer[count:], offset + count

    def check_unchanged(self) -> None:
        now = self._current_state()
        if now == self._state or (os.fstat(self._descriptor).st_nlink == 0 and now[:-1] == self._state[:-1]):
            return
        raise ChangedFileError(f"{self._path} was written to while it was open", _HINT)

    def _current_state(self) -> tuple[int, int, int, int, int]:
        stat = os.fstat(self._descriptor)
        return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
