"""The results of a call: losses and their parts."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from costbank.loss.options import EMOOptions

__all__ = ["EMOParts", "EMOResult", "TokenColumns", "accumulation_dtype", "weight_gradient_dtype"]


class EMOParts(NamedTuple):
    """The parts of each token's loss, without gradient; 0 for ignored tokens.

    Attributes:
        ce: the cross-entropy in nats, to the smoothed label or soft targets if there are any.
        value: D, the value of the objective: for `emo` the expected cost K = Σ_i p_i c(i, t).
        ce_weight: α, the weight of the cross-entropy's gradient.
        value_weight: β, the weight of D's gradient.
        lse: log Σ_i exp z_i, after softcap and temperature.
        correct: 1 if the label has the largest logit; if several logits are equally large, the first one counts. The
            label of soft targets is their most probable token.
        neighbor_mass: the probability of the label's neighbors if the costs list them; else NaN.
        entropy: −Σ_i p_i log p_i in nats, after softcap and temperature, if it was requested or is needed; else NaN.
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
    """A loss after reduction, and its parts for each token, in the shape of the labels."""

    loss: Tensor
    parts: EMOParts


@dataclass
class TokenColumns:
    """Losses and parts of all tokens, each [tokens], filled block by block; 0 for ignored tokens."""

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
        """Write the losses of a block times their weights, and the parts, for kept tokens."""
        weighted = loss if weights is None else loss * weights
        self.losses[rows] = torch.where(kept, weighted, 0.0)
        for column, values in zip(self.parts, parts or (), strict=True):
            column[rows] = torch.where(kept, values, 0.0)


def accumulation_dtype(dtype: torch.dtype, options: EMOOptions) -> torch.dtype:
    """The type of the softmax and of sums for logits of this type."""
    return torch.promote_types(dtype, torch.float64 if options.accumulate == "float64" else torch.float32)


def weight_gradient_dtype(weight: torch.dtype, sums: torch.dtype, options: EMOOptions) -> torch.dtype:
    """The type in which the gradient of a weight is summed over blocks, with `sums` that of other sums.

    Sums over tokens may exceed the range of float16.
    """
    return weight if options.weight_gradient != "wide" and weight == torch.bfloat16 else sums
