"""What an objective is: three looks at a block of logits; and the two that need no costs."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from costbank.loss.columns import Columns, LabelPlace, Pull, Rows, Sums
from costbank.loss.options import EMOOptions

__all__ = ["Block", "Buffers", "Delta", "Objective", "Softened", "of_columns", "softened"]


class Buffers(Protocol):
    def take(self, name: str, rows: int) -> Tensor: ...


@dataclass
class Block:
    """What an objective is given: whose columns these are, and buffers to work in."""

    options: EMOOptions
    columns: Columns
    buffers: Buffers


class Objective:
    """Cross-entropy alone: D = 0."""

    def __init__(self, block: Block) -> None:
        self.block = block

    def read(self, scores: Float[Tensor, "n columns"], labels: Int64[Tensor, "n"], label: LabelPlace) -> None:
        """Take from the logits what is needed, before they become probabilities."""

    def measure(self, wrong: Float[Tensor, "n columns"]) -> Sums:
        """Sums over the columns here, of their softmax without the label's own entry."""
        del wrong
        return Sums()

    def value(self, rows: Rows, sums: Sums) -> Tensor:
        """D, [n], from the sums over all columns."""
        del sums
        return torch.zeros_like(rows.ce)

    def gradient_(self, wrong: Tensor, rows: Rows, value: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        """Make `wrong` into scale · wrong + weight · ∂D/∂z over the wrong tokens; the label's own entry is returned."""
        del value, weight
        wrong.mul_(of_columns(scale, rows))
        return torch.zeros_like(scale)

    def neighbor_mass(self, rows: Rows, sums: Sums) -> Tensor:
        """The probability of the label's neighbors; NaN where costs know of none."""
        del sums
        return torch.full_like(rows.ce, torch.nan)


class Delta(Objective):
    """1 − p_t, with the gradient p_t · p_i."""

    def value(self, rows: Rows, sums: Sums) -> Tensor:
        del sums
        return rows.miss

    def gradient_(self, wrong: Tensor, rows: Rows, value: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        wrong.mul_(of_columns(scale + weight * rows.hit, rows))
        return -weight * value * rows.hit


def of_columns(values: Tensor, rows: Rows) -> Tensor:
    """[n, 1] factors of the probabilities of the columns here, which sum to 1 over these alone."""
    return (values if rows.scale is None else values * rows.scale)[:, None]


class Softened(NamedTuple):
    """The cross-entropy to a label that shares with others: weights are 1 at the label, and a pull's beside it.

    Attributes:
        value: −Σ q_i log p_i, [n], of these weights divided by their total.
        total: [n].
        others: [n], 1 − q_t.
    """

    value: Tensor
    total: Tensor
    others: Tensor


def softened(rows: Rows, pull: Pull) -> Softened:
    total = 1.0 + pull.weight
    others = pull.weight / total
    return Softened(rows.cross_entropy(Pull(others, pull.under / total), 1.0 / total), total, others)
