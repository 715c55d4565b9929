"""Buffers that all blocks of a call share."""

import torch
from torch import Tensor

__all__ = ["Workspace"]


class Workspace:
    """Named buffers of rows of logits, made once and used for every block.

    At 256 rows of 32,768 a fresh buffer takes longer than a pass over one that is there.
    """

    def __init__(self, columns: int, device: torch.device, dtype: torch.dtype) -> None:
        self._columns, self._device, self._dtype = columns, device, dtype
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, rows: int) -> Tensor:
        """[rows, columns] of the buffer of this name, with anything in it."""
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < rows:
            buffer = torch.empty(rows, self._columns, dtype=self._dtype, device=self._device)
            self._buffers[name] = buffer
        return buffer[:rows]
