"""Rows in 8 bits, `torch.float8_e4m3fn`, with a scale for each row.

A number has 4 significant bits, so rounding moves it by at most 1/16 of its size. A row e becomes s · r with r in 8
bits: first s = max |e_j| / 448, where 448 is the largest number of the type; then, for the rounded r, the s that is
nearest to e: ⟨e, r⟩ / ⟨r, r⟩.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["FLOAT8", "Float8Rows", "RoundingError"]

FLOAT8 = torch.float8_e4m3fn
"""The type of rows in 8 bits."""

_MOST = torch.finfo(FLOAT8).max
_SAMPLED_ROWS = 2_048


class RoundingError(NamedTuple):
    """How much rounding rows changes the cost between two different tokens.

    Attributes:
        bound: no cost of the rounded rows, computed exactly, changes by more.
        largest: the largest change between sampled tokens.
        mean: the mean change between sampled tokens.
        sampled: the number of sampled tokens.
    """

    bound: float
    largest: float
    mean: float
    sampled: int

    def __str__(self) -> str:
        return (
            f"which changes a cost by at most {self.bound:.2g}; measured between {self.sampled:,} tokens: by at most "
            f"{self.largest:.2g}, {self.mean:.2g} on average"
        )


class Float8Rows:
    """Rows that are rounded block by block, and the error of their costs.

    Attributes:
        vectors: [count, dim], the rows divided by their scales.
        scales: float32 [count]; 0 for rows of zeros.
    """

    def __init__(self, count: int, dim: int, device: torch.device | str | None) -> None:
        """`count` rows of zeros."""
        self.vectors = torch.zeros(count, dim, dtype=FLOAT8, device=device)
        self.scales = torch.zeros(count, device=device)
        self._step = max(1, -(-count // _SAMPLED_ROWS))
        self._sample: list[tuple[Tensor, Tensor]] = []
        # The largest distance that a row moves, and the largest length before or after.
        self._moved, self._length = 0.0, 0.0

    def put(self, start: int, rows: Float[Tensor, "n dim"]) -> None:
        """Round the rows from `start` on."""
        wide = rows.to(self.scales.device, torch.float32)
        size = wide.abs().amax(dim=1, keepdim=True)
        # A row of zeros, or of numbers that float32 cannot divide, stays 0.
        usable = size > torch.finfo(torch.float32).tiny * _MOST
        rounded = torch.where(usable, wide / (size / _MOST), 0.0).clamp_(-_MOST, _MOST).to(FLOAT8)
        factor = rounded.float()
        scale = (wide * factor).sum(dim=1) / factor.square().sum(dim=1).clamp_min(1.0)
        block = slice(start, start + len(wide))
        self.vectors[block], self.scales[block] = rounded, scale
        near = factor.mul_(scale[:, None])
        if len(wide):
            self._moved = max(self._moved, float((wide - near).norm(dim=1).max()))
            self._length = max(self._length, float(wide.norm(dim=1).max()), float(near.norm(dim=1).max()))
        sampled = slice(-start % self._step, None, self._step)
        self._sample.append((wide[sampled].clone(), near[sampled].clone()))

    @property
    def error(self) -> RoundingError:
        """The change of the costs: |⟨e + δ, f + ε⟩ − ⟨e, f⟩| = |⟨δ, f⟩ + ⟨e + δ, ε⟩|, at most |δ| |f| + |e + δ| |ε|."""
        bound = 2 * self._moved * self._length
        if not self._sample:
            return RoundingError(bound, 0.0, 0.0, 0)
        wide, near = (torch.cat(rows).double() for rows in zip(*self._sample, strict=True))
        changes = (wide @ wide.T - near @ near.T).abs_().fill_diagonal_(0.0)
        count = len(wide)
        largest = float(changes.max()) if count else 0.0
        return RoundingError(bound, largest, float(changes.sum()) / max(1, count * (count - 1)), count)
