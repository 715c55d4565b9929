"""The EMO loss as a module that holds options and costs, and nothing else."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, overload

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from costbank.bank import Bank
from costbank.loss.costs import DenseCosts
from costbank.loss.functional import EMOResult, emo_loss
from costbank.loss.options import EMOOptions

__all__ = ["EMOLoss"]


class EMOLoss(nn.Module):
    """`emo_loss` with its costs and options: `EMOLoss(open_bank("my-bank"))(logits, labels)`.

    The costs follow the module to a device and stay float32 through `.half()` and `.bfloat16()`. They are neither
    parameters nor buffers: a checkpoint does not hold them.

    Args:
        costs: a bank, or its costs where they were fitted to other logits (see `DenseCosts.from_bank`).
        options: how the loss is put together.
        **changes: single options by name, such as `mixing="fixed", weight=0.5`.

    Raises:
        UsageError: an option has a value that it cannot have.
    """

    def __init__(self, costs: Bank | DenseCosts, options: EMOOptions | None = None, **changes: Any) -> None:
        super().__init__()
        self.costs = DenseCosts.from_bank(costs) if isinstance(costs, Bank) else costs
        self.options = replace(options or EMOOptions(), **changes)

    @overload
    def forward(
        self, logits: Float[Tensor, "*tokens vocab"], labels: Integer[Tensor, "*tokens"], parts: Literal[False] = False
    ) -> Tensor: ...
    @overload
    def forward(
        self, logits: Float[Tensor, "*tokens vocab"], labels: Integer[Tensor, "*tokens"], parts: Literal[True]
    ) -> EMOResult: ...
    def forward(self, logits: Tensor, labels: Tensor, parts: bool = False) -> Tensor | EMOResult:
        """The loss of logits [..., vocab] for labels [...]; with `parts`, also what it is made of."""
        return emo_loss(logits, labels, self.costs, self.options, parts=parts)

    def extra_repr(self) -> str:
        return f"{self.costs.bank}, {self.options}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "EMOLoss":
        moved = super()._apply(fn, recurse)
        place = fn(torch.empty(0, device=self.costs.vectors.device)).device
        self.costs = self.costs.to(place)
        return moved
