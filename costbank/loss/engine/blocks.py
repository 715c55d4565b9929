"""One block of token rows: its losses, and the gradient of its logits in closed form.

For α·CE + β·D with weights α and β that take no gradient,

    ∂/∂z_i = α (p_i − q_i) + β ∂D/∂z_i,

whose sum over i is 0; q is 1 at the label, or smoothed or soft. One buffer contains logits, then probabilities, then
the gradient.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from costbank.loss.engine.mixing import mix
from costbank.loss.engine.objectives import Block, Gradient, Objective
from costbank.loss.engine.result import EMOParts
from costbank.loss.engine.softmax import LabelColumn, LocalStats, PartialSums, SoftmaxStats, TargetTerm, VocabShard
from costbank.loss.engine.targets import SoftTargets, Targets, targets_of
from costbank.loss.engine.workspace import Workspace
from costbank.loss.options import EMOOptions

__all__ = ["BlockPlan", "BlockResult", "block_losses"]

_PIECE_ROWS = 128


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
        with_entropy: also compute the entropy, which takes another pass over the block, and a buffer.
    """

    objective: Objective
    options: EMOOptions
    shard: VocabShard
    with_gradient: bool = False
    with_parts: bool = False
    with_entropy: bool = False


def block_losses(
    logits: Float[Tensor, "n columns"],
    labels: Int64[Tensor, "n"] | SoftTargets,
    weights: Float[Tensor, "n"] | None,
    plan: BlockPlan,
    workspace: Workspace,
) -> BlockResult:
    """Losses of a block of tokens, none of which is ignored.

    `logits` are overwritten, with the gradient of the sum of weighted losses if the plan asks for it. Blocks are large
    because the matrix products outside this function are faster then. Here a block is processed in pieces: each needs
    costs for its own rows only, and fits the processor's cache.
    """
    rows = _PIECE_ROWS if logits.device.type == "cpu" and plan.shard.gather is None else len(logits)
    pieces = [slice(start, start + rows) for start in range(0, len(logits), max(1, rows))]
    results = [
        _piece_losses(logits[piece], labels[piece], None if weights is None else weights[piece], plan, workspace)
        for piece in pieces
    ]
    if len(results) == 1:
        return results[0]
    parts = None
    if plan.with_parts:
        parts = EMOParts(
            *(torch.cat(columns) for columns in zip(*(result.parts or () for result in results), strict=True))
        )
    return BlockResult(torch.cat([result.loss for result in results]), parts)


def _piece_losses(
    logits: Float[Tensor, "n columns"],
    labels: Int64[Tensor, "n"] | SoftTargets,
    weights: Float[Tensor, "n"] | None,
    plan: BlockPlan,
    workspace: Workspace,
) -> BlockResult:
    options, objective = plan.options, plan.objective
    slope = _softcap_(logits, options, workspace if plan.with_gradient else None)
    targets = targets_of(labels, options, plan.shard, logits.dtype)
    label = plan.shard.column_of(targets.label)
    stats, sums, term, state = _softmax_(logits, targets, label, plan, workspace)
    # The logits are probabilities now, and 0 at the labels.
    value, state = objective.value(stats, sums, state)
    ce = targets.cross_entropy(stats, term)
    loss, ce_weight, value_weight = mix(ce, value, stats, options)
    if options.z_loss:
        loss = loss + options.z_loss * stats.lse.square()
    if plan.with_gradient:
        factors = _factors(ce_weight, value_weight, stats, weights, options)
        gradient = objective.gradient(logits, stats, value, state)
        at_label = _gradient_(logits, stats, factors, gradient, targets)
        plan.shard.put_label_(logits, label, at_label)
        if slope is not None:
            logits.mul_(slope)
    if not plan.with_parts:
        return BlockResult(loss, None)
    neighbor_mass = objective.neighbor_mass(stats, sums)
    entropy = torch.full_like(ce, torch.nan) if stats.entropy is None else stats.entropy
    parts = EMOParts(ce, value, ce_weight, value_weight, stats.lse, stats.correct, neighbor_mass, entropy)
    return BlockResult(loss, parts)


class _Softmax(NamedTuple):
    """Statistics, sums and the target's term over the whole vocabulary, and the objective's state."""

    stats: SoftmaxStats
    sums: PartialSums
    term: TargetTerm | None
    state: Any


def _softmax_(
    logits: Float[Tensor, "n columns"], targets: Targets, label: LabelColumn, plan: BlockPlan, workspace: Workspace
) -> _Softmax:
    """Turn logits into probabilities, 0 at the labels."""
    shard, objective, temperature = plan.shard, plan.objective, plan.options.temperature
    best_other = shard.best_other_logit(logits, label) if plan.with_parts else None
    label_logit = shard.logits_of(logits, label)
    # From here on logits are differences from the largest. All logits may be in the thousands, and numbers added to
    # them would lose precision.
    top, shift = shard.max_and_shift(logits)
    logits.sub_(shift[:, None])
    if temperature != 1.0:
        logits.div_(temperature)
    term = targets.term(logits)
    state = objective.read(Block(logits, targets, label, shard, workspace))
    peak = shard.softmax_(logits, top)
    probs = shard.without_label_(logits, label)
    sums, state = objective.measure(probs, state)
    own_targets = sums.targets
    if term is not None:
        sums = sums._replace(targets=(*own_targets, term))
    others, spread = probs.sum(dim=1), None
    if plan.with_entropy:
        # p (shift − z) is −p log p + p log peak. Probabilities have full precision, and the logits are overwritten.
        entropies = torch.special.entr(probs, out=workspace.take("entropy", len(probs)))
        spread = entropies.sum(dim=1) + torch.log(peak) * others
    stats, sums = shard.merge(LocalStats(top, label_logit, peak, others, best_other, spread), temperature, sums)
    merged = sums.targets
    return _Softmax(
        stats,
        sums._replace(targets=merged[: len(own_targets)]),
        None if term is None else merged[-1],
        state,
    )


class _Factors(NamedTuple):
    """The factors of the gradients of CE, D and log Σ exp z, each [n]."""

    ce: Tensor
    value: Tensor
    lse: Tensor | None


def _factors(
    ce_weight: Tensor, value_weight: Tensor, stats: SoftmaxStats, weights: Tensor | None, options: EMOOptions
) -> _Factors:
    """α, β and the weight of the z-loss, times the token weights, divided by the temperature."""
    by_token = 1.0 / options.temperature if weights is None else weights / options.temperature
    of_lse = 2 * options.z_loss * stats.lse * by_token if options.z_loss else None
    of_value = value_weight * by_token
    if weights is not None:
        # A token of weight 0 may have an infinite loss, and with `emo1` an infinite β.
        of_value = torch.where(weights == 0, 0.0, of_value)
    return _Factors(ce_weight * by_token, of_value, of_lse)


def _gradient_(
    probs: Float[Tensor, "n columns"],
    stats: SoftmaxStats,
    factors: _Factors,
    gradient: Gradient | None,
    targets: Targets,
) -> Float[Tensor, "n"]:
    """Overwrite the probabilities of other tokens with the gradient, and return the entry of the label."""
    common, at_label = factors.ce, -factors.ce * stats.other_prob
    if factors.lse is not None:
        common, at_label = common + factors.lse, at_label + factors.lse * stats.label_prob
    if gradient is None:
        probs.mul_(stats.local(common)[:, None])
    else:
        probs.mul_(stats.local(common + factors.value * gradient.common)[:, None])
        _add_terms_(probs, stats, gradient, factors.value)
        at_label = at_label + factors.value * gradient.label
    of_targets = targets.subtract_(probs, factors.ce)
    return at_label if of_targets is None else at_label + of_targets


def _add_terms_(grad: Float[Tensor, "n columns"], stats: SoftmaxStats, gradient: Gradient, weight: Tensor) -> None:
    """Add the terms of an objective's gradient other than p_i · common, times [n] weights."""
    if gradient.costs is not None:
        grad.add_(gradient.costs.mul_(stats.local(weight)[:, None]))
    if gradient.targets is not None:
        assert gradient.factor is not None
        grad.sub_(gradient.targets.mul_((weight * gradient.factor)[:, None]))
    if gradient.floor is not None:
        grad.sub_((weight * gradient.floor)[:, None])
    if gradient.neighbors is not None:
        columns, values = gradient.neighbors
        grad.scatter_add_(1, columns, values * weight[:, None])


def _softcap_(logits: Tensor, options: EMOOptions, workspace: Workspace | None) -> Tensor | None:
    """Cap the logits in place, and return the slope if the gradient needs it."""
    if options.softcap is None:
        return None
    slope, masked = None, logits == -torch.inf
    logits.div_(options.softcap).tanh_()
    if workspace is not None:
        slope = workspace.take("slope", len(logits))
        torch.mul(logits, logits, out=slope).neg_().add_(1.0)
    logits.mul_(options.softcap).masked_fill_(masked, -torch.inf)
    return slope
