"""What comes out of the blocks of a call."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from costbank.loss.options import EMOOptions

__all__ = ["EMOParts", "EMOResult", "TokenColumns", "accumulation_dtype"]


class EMOParts(NamedTuple):
    """What a loss is made of, for each token and without gradient; 0 for ignored tokens.

    Attributes:
        ce: cross-entropy, in nats; with label smoothing to the smoothed label, with soft targets to these.
        value: D, the value of the objective: for `emo` the expected cost K = Σ_i p_i c(i, t).
        ce_weight: α, the weight of the cross-entropy's gradient.
        value_weight: β, the weight of D's gradient.
        lse: log Σ_i exp z_i, after softcap and temperature.
        correct: 1 where the label has the largest logit, the first of them where several are equal; the label of soft
            targets is their likeliest token.
        neighbor_mass: the probability of the label's neighbors, where costs list them; else NaN.
        entropy: −Σ_i p_i log p_i in nats, after softcap and temperature, where it is asked for; else NaN.
    """

    ce: Tensor
    value: Tensor
    ce_weight: Tensor
    value_weight: Tensor
    lse: Tensor
    correct: Tensor
    neighbor_mass: Tensor
    entropy: Tensor


class EMOResult(NamedTuple):
    """A loss, reduced as the options say, and its parts for each token, of the labels' shape."""

    loss: Tensor
    parts: EMOParts


@dataclass
class TokenColumns:
    """Losses and parts of all tokens, each [tokens], filled block by block; 0 where tokens are ignored."""

    losses: Tensor
    parts: list[Tensor]

    @classmethod
    def zeros(cls, count: int, like: Tensor, dtype: torch.dtype, with_parts: bool) -> "TokenColumns":
        names = ("loss", *(EMOParts._fields if with_parts else ()))
        losses, *parts = (torch.zeros(count, dtype=dtype, device=like.device) for _ in names)
        return cls(losses, parts)

    def put(
        self, rows: "slice | Tensor", loss: Tensor, parts: EMOParts | None, kept: Tensor, weights: Tensor | None
    ) -> None:
        """Write a block's losses, times their weights, and parts, where tokens are kept."""
        weighted = loss if weights is None else loss * weights
        self.losses[rows] = torch.where(kept, weighted, 0.0)
        for column, values in zip(self.parts, parts or (), strict=True):
            column[rows] = torch.where(kept, values, 0.0)


def accumulation_dtype(dtype: torch.dtype, options: EMOOptions) -> torch.dtype:
    """The type of softmax and sums for logits of a type."""
    return torch.promote_types(dtype, torch.float64 if options.accumulate == "float64" else torch.float32)
