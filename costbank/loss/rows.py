"""The arithmetic of one block of token rows: values, and the gradient of the logits in closed form.

For α·CE + β·D with per-token weights that take no gradient,

    ∂/∂z_i = α (p_i − [i = t]) + β ∂D/∂z_i,

whose sum over i is 0. What label smoothing and soft targets give to tokens beside the label is added; the label of soft
targets is their likeliest token. The label's own entry is kept apart from the others, so that 1 − p_t is a sum of small
numbers and never a difference of two large ones: a token that is nearly certain keeps an exact cross-entropy, cost and
gradient in float32. All is done in one buffer, which holds logits, then probabilities, then the gradient: at 256 rows
of 32,768 a fresh buffer takes longer than a pass over one that is there.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from costbank.loss.columns import Columns, Rows
from costbank.loss.costs import Costs
from costbank.loss.objectives import Objective, objective_of
from costbank.loss.options import EMOOptions, Schedule
from costbank.loss.smoothing import Smoothing
from costbank.loss.soft import SoftBlock, SoftTargets

__all__ = ["BlockPlan", "BlockResult", "EMOParts", "Workspace", "block_losses"]

_TINY = 1e-10
_MOST_RATIO = 3.0
_PIECE_ROWS = 128


class EMOParts(NamedTuple):
    """What a loss is made of, per token and without gradient; 0 for ignored tokens.

    Attributes:
        ce: cross-entropy, in nats; with label smoothing, to the smoothed label; that of soft targets to these.
        emd: D, the value of the objective: for `emo` the expected cost K = Σ_i p_i c(i, t).
        ce_weight: α, the weight of the cross-entropy's gradient.
        emd_weight: β, the weight of D's gradient.
        lse: log Σ_i exp z_i, after softcap and temperature.
        correct: 1 where the label has the largest logit, the first of them where several are equal; of soft targets
            the likeliest token is meant.
        neighbor_mass: the probability of the label's neighbors, where costs are of that form; else NaN.
        entropy: −Σ_i p_i log p_i in nats, after softcap and temperature, where it is asked for; else NaN.
    """

    ce: Tensor
    emd: Tensor
    ce_weight: Tensor
    emd_weight: Tensor
    lse: Tensor
    correct: Tensor
    neighbor_mass: Tensor
    entropy: Tensor


class BlockResult(NamedTuple):
    """Losses [n] of some rows, unweighted, and their parts where they were asked for.

    The gradient of the weighted losses' sum by the logits is where the logits were, if it was asked for.
    """

    loss: Tensor
    parts: EMOParts | None


class Workspace:
    """Buffers of rows of logits that are made once and used again and again: fresh memory costs more than a pass."""

    def __init__(self, columns: int, device: torch.device, dtype: torch.dtype) -> None:
        self._columns, self._device, self._dtype = columns, device, dtype
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, rows: int) -> Tensor:
        """`rows` rows of a buffer, with anything in it."""
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < rows:
            buffer = torch.empty(rows, self._columns, dtype=self._dtype, device=self._device)
            self._buffers[name] = buffer
        return buffer[:rows]


@dataclass(frozen=True)
class BlockPlan:
    """What is the same for all blocks of a call.

    Attributes:
        costs: None where the objective asks for none.
        options: with a weight that is a number.
        columns: which tokens the logits' columns stand for, and who has the others.
        with_gradient: turn the logits into their gradient.
        with_parts: also say what losses are made of.
        with_entropy: and the entropy with it, which takes another pass over the block and a buffer of a piece.
    """

    costs: Costs | None
    options: EMOOptions
    columns: Columns
    with_gradient: bool
    with_parts: bool
    with_entropy: bool = False


def block_losses(
    scores: Float[Tensor, "n columns"],
    labels: Int64[Tensor, "n"] | SoftTargets,
    weights: Float[Tensor, "n"] | None,
    plan: BlockPlan,
    workspace: Workspace,
) -> BlockResult:
    """Losses of a block of tokens, none of them ignored; `scores` become their gradient, or are used up.

    A block is wide for the sake of the matrix products around it. Here a piece of it is taken at a time: costs are held
    for that piece alone, and passes over it find it in the processor's cache.
    """
    rows = _PIECE_ROWS if scores.device.type == "cpu" and plan.columns.gather is None else len(scores)
    pieces = [slice(start, start + rows) for start in range(0, len(scores), max(1, rows))]
    results = [
        _piece_loss(scores[piece], labels[piece], None if weights is None else weights[piece], plan, workspace)
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


def _piece_loss(
    scores: Float[Tensor, "n columns"],
    labels: Int64[Tensor, "n"] | SoftTargets,
    weights: Float[Tensor, "n"] | None,
    plan: BlockPlan,
    workspace: Workspace,
) -> BlockResult:
    options, columns = plan.options, plan.columns
    slope = _cap_(scores, options, workspace if plan.with_gradient else None)
    soft, ids, beside = None, labels, None
    if isinstance(ids, SoftTargets):
        soft = beside = SoftBlock(ids, columns, scores.dtype)
        ids = soft.label
    elif options.label_smoothing:
        beside = Smoothing(options.label_smoothing, columns)
    objective = objective_of(plan.costs, options, columns, workspace, soft)
    label = columns.place(ids)
    rival = columns.rival(scores, label) if plan.with_parts else None
    target = columns.at_label(scores, label)
    # From here on logits are differences from the largest: what all have in common may be thousands, and would take the
    # digits of whatever is added to it.
    top, base = columns.tops(scores)
    scores.sub_(base[:, None])
    if options.temperature != 1.0:
        scores.div_(options.temperature)
    pull = None if beside is None else beside.pull(scores)
    objective.read(scores, ids, label)
    peak = columns.softmax_(scores, top)
    wrong = columns.without_label_(scores, label)
    sums = objective.measure(wrong)
    if pull is not None:
        sums = sums._replace(pulls=(*sums.pulls, pull))
    miss = wrong.sum(dim=1)
    spread = None
    if rival is not None and plan.with_entropy:
        # p (base − z) is −p log p + p log peak: of probabilities, which have all digits left where logits are gone.
        spread = (
            torch.special.entr(wrong, out=workspace.take("entropy", len(wrong))).sum(dim=1) + torch.log(peak) * miss
        )
    rows, sums = columns.merge(target, top, options.temperature, peak, miss, rival, sums, spread)

    value = objective.value(rows, sums)
    ce = rows.ce if beside is None else rows.cross_entropy(sums.pulls[-1], beside.own)
    loss, ce_weight, emd_weight = _mix(ce, value, rows, options)
    if options.z_loss:
        loss = loss + options.z_loss * rows.lse.square()
    if plan.with_gradient:
        by_token = 1.0 / options.temperature if weights is None else weights / options.temperature
        of_lse = 2 * options.z_loss * rows.lse * by_token if options.z_loss else None
        of_emd = emd_weight * by_token
        if weights is not None:
            # A token whose loss counts for nothing may have an infinite one, and with `emo1` an infinite weight.
            of_emd = torch.where(weights == 0, 0.0, of_emd)
        factors = _Factors(ce_weight * by_token, of_emd, of_lse)
        of_label = _wrong_gradient_(wrong, rows, value, factors, objective, beside)
        columns.put_label_(wrong, label, of_label)
        if slope is not None:
            wrong.mul_(slope)
    parts = None
    if rival is not None:
        near = objective.neighbor_mass(rows, sums)
        entropy = torch.full_like(ce, torch.nan) if rows.entropy is None else rows.entropy
        parts = EMOParts(ce, value, ce_weight, emd_weight, rows.lse, rows.correct, near, entropy)
    return BlockResult(loss, parts)


class _Factors(NamedTuple):
    """What gradients of CE, of D and of log Σ exp z are multiplied by, each [n]."""

    ce: Tensor
    emd: Tensor
    lse: Tensor | None


def _wrong_gradient_(
    wrong: Tensor,
    rows: Rows,
    value: Tensor,
    factors: _Factors,
    objective: Objective,
    beside: SoftBlock | Smoothing | None,
) -> Tensor:
    """Turn the probabilities of wrong tokens into the gradient of their logits; the label's own entry is returned."""
    scale, of_label = factors.ce, -factors.ce * rows.miss
    if factors.lse is not None:
        scale, of_label = scale + factors.lse, of_label + factors.lse * rows.hit
    of_label = of_label + objective.gradient_(wrong, rows, value, scale, factors.emd)
    return of_label if beside is None else of_label + beside.pull_(wrong, factors.ce)


def _cap_(scores: Tensor, options: EMOOptions, workspace: Workspace | None) -> Tensor | None:
    """The softcap in place; its slope, where the gradient will need it."""
    if options.softcap is None:
        return None
    slope, masked = None, scores == -torch.inf
    scores.div_(options.softcap).tanh_()
    if workspace is not None:
        slope = workspace.take("slope", len(scores))
        torch.mul(scores, scores, out=slope).neg_().add_(1.0)
    scores.mul_(options.softcap).masked_fill_(masked, -torch.inf)
    return slope


def _mix(ce: Tensor, value: Tensor, rows: Rows, options: EMOOptions) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, and the weights α and β of the gradients of CE and D."""
    one = torch.ones_like(ce)
    if options.is_cross_entropy:
        weight = one
        if options.objective == "tailr":
            gamma = options.tailr_gamma
            # p_t = exp(−CE); past 80 the exponential would overflow, and the weight is nothing already.
            weight = (1 / (1 - gamma + gamma * torch.exp(ce.clamp_max(80.0)))).clamp_min(options.tailr_least)
        elif options.objective == "mixce":
            weight = options.mixce_ratio + (1 - options.mixce_ratio) * rows.hit
        return weight * ce, weight, 0 * one
    if options.target_mass == "detached":
        value = value + rows.hit
    weight = options.weight
    assert not isinstance(weight, Schedule), "options are taken at a step before they get here"
    if options.mixing == "fixed":
        return (ce if weight == 0 else ce + weight * value), one, weight * one
    if options.mixing == "interpolate":
        # At either end the other may be infinite.
        mixed = value if weight == 1 else ce if weight == 0 else (1 - weight) * ce + weight * value
        return mixed, (1 - weight) * one, weight * one
    if options.mixing == "emo2":
        ratio = value / (ce + _TINY)
        # Where both are infinite, the ratio is 0.
        return torch.where(ce == torch.inf, ce, ratio * ce) + value, ratio, one
    ratio = ce / (value + _TINY)
    if options.mixing == "emo1_clamped":
        ratio = ratio.clamp_max(_MOST_RATIO)
    return 0.5 * (ce + ratio * value), 0.5 * one, 0.5 * ratio
