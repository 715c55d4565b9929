"""Buffers that all blocks of a call share."""

import torch
from torch import Tensor

__all__ = ["Workspace"]


class Workspace:
    """Named buffers of rows of logits, allocated once and used for every block.

    For 256 rows of 32,768 columns, allocating a buffer takes longer than a pass over it.
    """

    def __init__(self, columns: int, device: torch.device, dtype: torch.dtype) -> None:
        self._columns, self._device, self._dtype = columns, device, dtype
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, rows: int) -> Tensor:
        """[rows, columns] of the buffer of this name, uninitialized."""
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < rows:
            buffer = torch.empty(rows, self._columns, dtype=self._dtype, device=self._device)
            self._buffers[name] = buffer
        return buffer[:rows]
