"""Buffers that all blocks of a call share."""

import torch
from torch import Tensor

__all__ = ["Workspace"]


class Workspace:
    """Named buffers of rows of logits, allocated once and used for every block.

    For 256 rows of 32,768 columns, allocating a buffer takes longer than a pass over it.
    """

    def __init__(self, columns: int, device: torch.device, dtype: torch.dtype, aligned: bool = False) -> None:
        """Buffers of a number of columns and a type; with `aligned`, rows start at multiples of 64 elements.

        On an accelerator, matrix products of other rows are slow; PyTorch's softmax needs rows without gaps.
        """
        self._columns, self._device, self._dtype, self._aligned = columns, device, dtype, aligned
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def take(self, name: str, rows: int, dtype: torch.dtype | None = None) -> Tensor:
        """[rows, columns] of the buffer of this name, uninitialized; of another type than the workspace's if given."""
        key = name, dtype or self._dtype
        buffer = self._buffers.get(key)
        if buffer is None or len(buffer) < rows:
            columns = -(-self._columns // 64) * 64 if self._aligned else self._columns
            buffer = torch.empty(rows, columns, dtype=key[1], device=self._device)[:, : self._columns]
            self._buffers[key] = buffer
        return buffer[:rows]
