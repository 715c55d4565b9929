"""Label smoothing: a part of the target that all tokens share evenly."""

import torch
from jaxtyping import Float
from torch import Tensor

from costbank.loss.columns import Columns, Pull

__all__ = ["Smoothing"]


class Smoothing:
    """The share of the target that each token of the vocabulary has, the label too beside its own.

    Attributes:
        own: what the label has beside that; None for nothing.
    """

    def __init__(self, amount: float, columns: Columns) -> None:
        self.amount, self.own, self.share = amount, (1.0 - amount) or None, amount / columns.vocab

    def pull(self, scores: Float[Tensor, "n columns"]) -> Pull:
        """Towards all tokens alike."""
        weight = torch.full_like(scores[:, 0], scores.shape[1] * self.share)
        return Pull(weight, -self.share * scores.sum(dim=1))

    def pull_(self, block: Float[Tensor, "n columns"], weight: Float[Tensor, "n"]) -> Tensor:
        """Subtract weight · share from the columns; what it is at the label, beyond −weight, is returned."""
        block.sub_((weight * self.share)[:, None])
        return weight * (self.amount - self.share)
