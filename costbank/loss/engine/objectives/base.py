"""What an objective is: the value D of each token and its gradient, in closed form, at four stages of a block.

Every gradient here has one shape. For a token i that is not the label,

    ∂D/∂z_i = p_i (a + κ_i) − q_i,

with a number a for each row; κ the costs, weighted by p as soon as p is there; and q a target distribution, spread over
all columns or over a few. An objective returns these pieces as a `Gradient`, and the engine puts them together. What a
stage leaves for the next one is returned and passed on: objectives hold options and costs, and nothing of a block.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from costbank.loss.engine.softmax import LabelColumn, PartialSums, SoftmaxStats, TargetTerm, VocabShard
from costbank.loss.engine.targets import Targets
from costbank.loss.engine.workspace import Workspace
from costbank.loss.options import EMOOptions

__all__ = ["Block", "Delta", "Gradient", "NeighborTerms", "Objective", "Softened", "softened"]


@dataclass(frozen=True)
class Block:
    """A block of tokens before its logits become probabilities.

    Attributes:
        logits: [n, columns], less each row's shift, over the temperature.
        targets: what the tokens aim at.
        label: where the labels' columns are.
        shard: the slice of the vocabulary that the columns stand for.
        workspace: for buffers of the block's size.
    """

    logits: Float[Tensor, "n columns"]
    targets: Targets
    label: LabelColumn
    shard: VocabShard
    workspace: Workspace

    @property
    def labels(self) -> Int64[Tensor, "n"]:
        """Token ids of the whole vocabulary."""
        return self.targets.label

    def buffer(self) -> Float[Tensor, "n columns"]:
        """A buffer for costs, with anything in it: one for each block."""
        return self.workspace.take("costs", len(self.logits))


class NeighborTerms(NamedTuple):
    """[n, k] values to add to columns [n, k] of the gradient; the values of columns that are not here are 0."""

    columns: Int64[Tensor, "n k"]
    values: Float[Tensor, "n k"]


class Gradient(NamedTuple):
    """∂D/∂z of a block: p_i · common + costs_i − factor · targets_i − floor + neighbors_i, and `label` at the label.

    Attributes:
        label: [n].
        common: [n], a.
        costs: [n, columns], p_i κ_i with the probabilities among this process's columns; used up.
        targets: [n, columns], used up; and `factor` [n].
        factor: see `targets`.
        floor: [n].
        neighbors: a few columns' own terms.
    """

    label: Tensor
    common: Tensor
    costs: Tensor | None = None
    targets: Tensor | None = None
    factor: Tensor | None = None
    floor: Tensor | None = None
    neighbors: NeighborTerms | None = None


class Objective:
    """Cross-entropy alone: D = 0.

    `probs` are a softmax over this process's columns with 0 at the labels; `state` is what the stage before returned.
    """

    def __init__(self, options: EMOOptions, costs: Any = None) -> None:
        self.options, self.costs = options, costs

    def read(self, block: Block) -> Any:
        """Take what is needed of the logits."""
        return None

    def measure(self, probs: Float[Tensor, "n columns"], state: Any) -> tuple[PartialSums, Any]:
        """Sums over this process's columns."""
        return PartialSums(), state

    def value(self, stats: SoftmaxStats, sums: PartialSums, state: Any) -> tuple[Float[Tensor, "n"], Any]:
        """D, from the sums over the whole vocabulary."""
        return torch.zeros_like(stats.ce), state

    def gradient(self, probs: Float[Tensor, "n columns"], stats: SoftmaxStats, value: Tensor, state: Any) -> Any:
        """A `Gradient`; None where D has none."""
        return None

    def neighbor_mass(self, stats: SoftmaxStats, sums: PartialSums) -> Float[Tensor, "n"]:
        """The probability of the label's neighbors; NaN where costs do not list them."""
        return torch.full_like(stats.ce, torch.nan)


class Delta(Objective):
    """D = 1 − p_t, ∂D/∂z_i = p_i p_t."""

    def value(self, stats: SoftmaxStats, sums: PartialSums, state: Any) -> tuple[Tensor, Any]:
        return stats.other_prob, state

    def gradient(self, probs: Tensor, stats: SoftmaxStats, value: Tensor, state: Any) -> Gradient:
        return Gradient(label=-value * stats.label_prob, common=stats.label_prob)


class Softened(NamedTuple):
    """Cross-entropy to a label that shares with others: weights are 1 at the label, and a term's at other tokens.

    Attributes:
        value: −Σ q_i log p_i, [n], q being the weights divided by their total.
        total: [n].
        others: [n], 1 − q_t.
    """

    value: Tensor
    total: Tensor
    others: Tensor

    def gradient(self, stats: SoftmaxStats) -> Gradient:
        """p − q without what q subtracts from the other tokens."""
        return Gradient(label=self.others - stats.other_prob, common=torch.ones_like(self.total))


def softened(stats: SoftmaxStats, term: TargetTerm) -> Softened:
    """Normalize weights of a label and others to a target distribution."""
    total = 1.0 + term.weight
    others = term.weight / total
    return Softened(stats.cross_entropy(TargetTerm(others, term.nll_from_max / total), 1.0 / total), total, others)
