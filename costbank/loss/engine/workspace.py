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
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def take(self, name: str, rows: int, dtype: torch.dtype | None = None) -> Tensor:
        """[rows, columns] of the buffer of this name, uninitialized; of another type than the workspace's if given."""
        key = name, dtype or self._dtype
        buffer = self._buffers.get(key)
        if buffer is None or len(buffer) < rows:
            # On an accelerator, matrix products are slow if rows do not start at multiples of 128 bytes.
            columns = self._columns if self._device.type == "cpu" else -(-self._columns // 64) * 64
            buffer = torch.empty(rows, columns, dtype=key[1], device=self._device)[:, : self._columns]
            self._buffers[key] = buffer
        return buffer[:rows]
