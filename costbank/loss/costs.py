"""Costs as training uses them: the rows of a bank as a tensor."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from costbank.bank import Bank
from costbank.errors import ShapeError

__all__ = ["DenseCosts"]


@dataclass(frozen=True, eq=False)
class DenseCosts:
    """The exact costs of a bank: c(i, t) = 1 − ⟨e_i, e_t⟩ over unit or zero rows e, and 0 for i = t.

    Attributes:
        vectors: float32 [vocab, dim]; the rows get no gradient.
        bank: name and id of the bank that they are from, for people and logs.
    """

    vectors: Float32[Tensor, "vocab dim"]
    bank: str = "unnamed"

    @classmethod
    def from_bank(cls, bank: Bank, vocab_size: int | None = None) -> Self:
        """Load all rows of a bank.

        Args:
            bank: its row i is token id i.
            vocab_size: the width of the logits where it is not the bank's. Ids past the bank's (the padding of a
                model's head) cost 1 to every token. Fewer ids drop the bank's last rows.

        Raises:
            ShapeError: `vocab_size` is not positive.
        """
        width = bank.size if vocab_size is None else vocab_size
        if width < 1:
            raise ShapeError(f"vocab_size is {width}", "give the width of the logits")
        rows = np.zeros((width, bank.dim), np.float32)
        rows[: bank.size] = bank.vectors(slice(0, width))
        return cls(torch.from_numpy(rows), f"{bank.name}@{bank.id}")

    @property
    def vocab_size(self) -> int:
        return self.vectors.shape[0]

    def to(self, device: torch.device | str) -> Self:
        """The same costs on another device; they stay float32."""
        return replace(self, vectors=self.vectors.to(device))

    def rows(self, labels: Tensor, dtype: torch.dtype) -> Tensor:
        """The costs of every token to each label, [n, vocab] for labels [n]: never negative, and 0 at the label."""
        vectors = self.vectors.to(dtype)
        costs = torch.mm(vectors[labels], vectors.T).neg_().add_(1.0).clamp_min_(0.0)
        return costs.scatter_(1, labels[:, None], 0.0)
