"""One block of token rows: its losses, and the gradient of its logits in closed form.

For α·CE + β·D with weights α and β that take no gradient,

    ∂/∂z_i = α (p_i − q_i) + β ∂D/∂z_i,

whose sum over i is 0; q is 1 at the label, or smoothed or soft. One buffer contains logits, then probabilities, then
the gradient. This is the path of PyTorch's own operations; `kernels` has another for accelerators.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from costbank.loss.engine.objectives import Block, Gradient
from costbank.loss.engine.outcome import BlockPlan, BlockResult, Factors, Softmax, outcome_of
from costbank.loss.engine.result import EMOParts
from costbank.loss.engine.softmax import LabelColumn, LocalStats, SoftmaxStats
from costbank.loss.engine.targets import SoftTargets, Targets, targets_of
from costbank.loss.engine.workspace import Workspace
from costbank.loss.options import EMOOptions

__all__ = ["block_losses"]

_PIECE_ROWS = 128


def block_losses(
    logits: Float[Tensor, "n columns"],
    labels: Int64[Tensor, "n"] | SoftTargets,
    weights: Float[Tensor, "n"] | None,
    plan: BlockPlan,
    workspace: Workspace,
) -> BlockResult:
    """Losses of a block of tokens.

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
    slope = _softcap_(logits, plan.options, workspace if plan.with_gradient else None)
    targets = targets_of(labels, plan.options, plan.shard, logits.dtype)
    label = plan.shard.column_of(targets.label)
    softmax = _softmax_(logits, targets, label, plan, workspace)
    # The logits are probabilities now, and 0 at the labels.
    outcome = outcome_of(softmax, targets, weights, plan)
    if outcome.factors is not None:
        gradient = plan.objective.gradient(logits, softmax.stats, outcome.value, outcome.state)
        at_label = _gradient_(logits, softmax.stats, outcome.factors, gradient, targets)
        plan.shard.put_label_(logits, label, at_label)
        if slope is not None:
            logits.mul_(slope)
    return outcome.result


def _softmax_(
    logits: Float[Tensor, "n columns"], targets: Targets, label: LabelColumn, plan: BlockPlan, workspace: Workspace
) -> Softmax:
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
    return Softmax(
        stats,
        sums._replace(targets=merged[: len(own_targets)]),
        None if term is None else merged[-1],
        state,
    )


def _gradient_(
    probs: Float[Tensor, "n columns"],
    stats: SoftmaxStats,
    factors: Factors,
    gradient: Gradient | None,
    targets: Targets,
) -> Float[Tensor, "n"]:
    """Overwrite the probabilities of other tokens with the gradient, and return the entry of the label."""
    if gradient is None:
        probs.mul_(factors.shared(stats, None)[:, None])
    else:
        probs.mul_(factors.shared(stats, gradient.common)[:, None])
        _add_terms_(probs, stats, gradient, factors.value)
    of_targets = targets.subtract_(probs, factors.ce)
    return factors.label(stats, None if gradient is None else gradient.label, of_targets)


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
        columns, values, _ = gradient.neighbors
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
