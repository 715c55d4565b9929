"""A checked call: the tokens that count, the plan of their blocks, and the reduction of losses."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from costbank.loss.engine.outcome import BlockPlan
from costbank.loss.engine.result import EMOParts, EMOResult
from costbank.loss.engine.targets import SoftTargets

__all__ = ["Call", "Tokens", "scaled"]


@dataclass(frozen=True)
class Tokens:
    """The targets of a call, one for each row of logits.

    Attributes:
        labels: int64 [tokens], 0 where ignored; or soft targets.
        weights: [tokens] or None; 0 where ignored. Their largest magnitude is 1, so that float16 gradients keep their
            precision.
        scale: the factor that restores the original weights.
        kept: [tokens], whether a token is not ignored and its weight is not 0.
        index: the indices of kept rows, if other rows are left out; else None.
        all_kept: whether it is known that all rows of the blocks are kept.
        is_sorted: whether the index is sorted by label.
        denominator: the divisor of the mean, a scalar.
        chunk_rows: rows in a block.
    """

    labels: Int64[Tensor, "tokens"] | SoftTargets
    weights: Float[Tensor, "tokens"] | None
    scale: Float[Tensor, ""] | None
    kept: Bool[Tensor, "tokens"]
    index: Int64[Tensor, "rows"] | None
    all_kept: bool
    is_sorted: bool
    denominator: Float[Tensor, ""]
    chunk_rows: int

    def weights_of(self, rows: "slice | Tensor") -> Tensor | None:
        """The weights of some rows, or None if tokens have no weights."""
        return None if self.weights is None else self.weights[rows]

    def blocks(self) -> list["slice | Tensor"]:
        """The rows of each block: slices, or indices if ignored rows are left out."""
        if self.index is not None:
            return list(self.index.split(self.chunk_rows)) if len(self.index) else []
        return [slice(start, start + self.chunk_rows) for start in range(0, len(self.kept), self.chunk_rows)]


@dataclass(frozen=True)
class Call:
    """A checked call.

    Attributes:
        shape: the shape of the rows, [...].
        tokens: their targets and weights.
        plan: what the blocks have in common.
        dtype: the type of the softmax and of sums.
    """

    shape: torch.Size
    tokens: Tokens
    plan: BlockPlan
    dtype: torch.dtype

    def reduced(self, losses: Tensor) -> Tensor:
        """The sum of weighted losses, or each of them, as the reduction and the scale of the weights say."""
        if self.tokens.scale is not None:
            losses = losses * self.tokens.scale
        return losses / self.tokens.denominator if self.plan.options.reduction == "mean" else losses

    def result(self, losses: Tensor, parts: list[Tensor]) -> EMOResult:
        """Reduce weighted losses [tokens], or their sum, and give parts the shape of the rows.

        Parts that were not requested are empty tensors.
        """
        is_each = self.plan.options.reduction == "none"
        loss = self.reduced(losses.reshape(self.shape) if is_each else losses.sum())
        if not self.plan.with_parts:
            return EMOResult(loss, EMOParts(*[losses.new_empty(0)] * len(EMOParts._fields)))
        return EMOResult(loss, EMOParts(*(part.reshape(self.shape) for part in parts)))


def scaled(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weights divided by their largest magnitude, and that magnitude; 1 if all are 0."""
    size = weights.abs().amax() if len(weights) else weights.new_ones(())
    size = torch.where(size > 0, size, 1.0)
    return weights / size, size
