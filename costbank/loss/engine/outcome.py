"""The outcome of a block from its statistics: losses, weights of the gradient's terms, and parts.

Everything here is [n], a number for each token, whoever computed the sums over the vocabulary.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from costbank.loss.engine.mixing import mix
from costbank.loss.engine.objectives import Objective
from costbank.loss.engine.result import EMOParts
from costbank.loss.engine.softmax import PartialSums, SoftmaxStats, TargetTerm, VocabShard
from costbank.loss.engine.targets import Targets
from costbank.loss.options import EMOOptions

__all__ = ["BlockPlan", "BlockResult", "Factors", "Outcome", "Softmax", "outcome_of"]


class BlockResult(NamedTuple):
    """Losses [n] of some rows, without weights, and their parts if requested."""

    loss: Tensor
    parts: EMOParts | None


@dataclass(frozen=True)
class BlockPlan:
    """What all blocks of a call have in common.

    Attributes:
        objective: the objective, with its costs.
        options: the options, with a number as weight.
        shard: the slice of the vocabulary that the logits' columns stand for.
        with_gradient: overwrite the logits with their gradient.
        with_parts: also compute `EMOParts`.
        with_entropy: also compute the entropy. With PyTorch's operations, that takes another pass over the block, and a
            buffer.
        kernels: run on Triton kernels.
        is_sorted: whether rows are sorted by label.
    """

    objective: Objective
    options: EMOOptions
    shard: VocabShard
    with_gradient: bool = False
    with_parts: bool = False
    with_entropy: bool = False
    kernels: bool = False
    is_sorted: bool = False


class Softmax(NamedTuple):
    """Statistics, sums and the target's term over the whole vocabulary, and the objective's state."""

    stats: SoftmaxStats
    sums: PartialSums
    term: TargetTerm | None
    state: Any


class Factors(NamedTuple):
    """The factors of the gradients of CE, D and log Σ exp z, each [n]."""

    ce: Tensor
    value: Tensor
    lse: Tensor | None

    def shared(self, stats: SoftmaxStats, common: Tensor | None) -> Tensor:
        """The factor of p_i in all columns, [n]; `common` is that of the objective's gradient."""
        factor = self.ce if self.lse is None else self.ce + self.lse
        return stats.local(factor if common is None else factor + self.value * common)

    def label(self, stats: SoftmaxStats, value: Tensor | None, targets: Tensor | None) -> Tensor:
        """The gradient at the label, [n], from that of D, and from what the target adds to −α."""
        at_label = -self.ce * stats.other_prob
        if self.lse is not None:
            at_label = at_label + self.lse * stats.label_prob
        if value is not None:
            at_label = at_label + self.value * value
        return at_label if targets is None else at_label + targets


class Outcome(NamedTuple):
    """What follows from the softmax of a block.

    Attributes:
        result: losses and parts.
        value: D, [n].
        state: the objective's last state.
        factors: those of the gradient; None if there is none.
    """

    result: BlockResult
    value: Tensor
    state: Any
    factors: Factors | None


def outcome_of(softmax: Softmax, targets: Targets, weights: Tensor | None, plan: BlockPlan) -> Outcome:
    """Losses and parts of a block, and the factors of its gradient.

    Args:
        softmax: the statistics over the whole vocabulary.
        targets: the targets of the tokens.
        weights: [n] token weights, or None.
        plan: what all blocks have in common.
    """
    options, objective, stats = plan.options, plan.objective, softmax.stats
    value, state = objective.value(stats, softmax.sums, softmax.state)
    ce = targets.cross_entropy(stats, softmax.term)
    loss, ce_weight, value_weight = mix(ce, value, stats, options)
    if options.z_loss:
        loss = loss + options.z_loss * stats.lse.square()
    factors = _factors(ce_weight, value_weight, stats, weights, options) if plan.with_gradient else None
    if not plan.with_parts:
        return Outcome(BlockResult(loss, None), value, state, factors)
    neighbor_mass = objective.neighbor_mass(stats, softmax.sums)
    entropy = torch.full_like(ce, torch.nan) if stats.entropy is None else stats.entropy
    parts = EMOParts(ce, value, ce_weight, value_weight, stats.lse, stats.correct, neighbor_mass, entropy)
    return Outcome(BlockResult(loss, parts), value, state, factors)


def _factors(
    ce_weight: Tensor, value_weight: Tensor, stats: SoftmaxStats, weights: Tensor | None, options: EMOOptions
) -> Factors:
    """α, β and the weight of the z-loss, times the token weights, divided by the temperature."""
    by_token = 1.0 / options.temperature if weights is None else weights / options.temperature
    of_lse = 2 * options.z_loss * stats.lse * by_token if options.z_loss else None
    of_value = value_weight * by_token
    if weights is not None:
        # A token of weight 0 may have an infinite loss, and with `emo1` an infinite β.
        of_value = torch.where(weights == 0, 0.0, of_value)
    return Factors(ce_weight * by_token, of_value, of_lse)
