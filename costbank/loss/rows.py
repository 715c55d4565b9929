"""The arithmetic of one block of token rows: values, and the gradient of the logits in closed form.

For α·CE + β·K with per-token weights that take no gradient, and K = Σ_i p_i κ_i,

    ∂/∂z_i = p_i (α + β (κ_i − K)) − α [i = t],

whose sum over i is 0. It is the row kernel of cross-entropy and one multiply-add. The label's own entry is kept apart
from the others, so that 1 − p_t is a sum of small numbers and never a difference of two large ones: a token that is
nearly certain keeps an exact cross-entropy, cost and gradient in float32.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from costbank.loss.costs import DenseCosts
from costbank.loss.options import EMOOptions

__all__ = ["BlockResult", "EMOParts", "block_loss"]

_TINY = 1e-10
_MOST_RATIO = 3.0


class EMOParts(NamedTuple):
    """What a loss is made of, per token and without gradient; 0 for ignored tokens.

    Attributes:
        ce: cross-entropy, in nats.
        emd: expected cost K = Σ_i p_i c(i, t).
        ce_weight: α, the weight of the cross-entropy's gradient.
        emd_weight: β, the weight of K's gradient.
        lse: log Σ_i exp z_i.
        correct: 1 where the label has the largest logit, the first of them where several are equal.
    """

    ce: Tensor
    emd: Tensor
    ce_weight: Tensor
    emd_weight: Tensor
    lse: Tensor
    correct: Tensor


class BlockResult(NamedTuple):
    """Losses and parts of some rows, and the gradient of the losses' sum by the logits where it was asked for."""

    loss: Tensor
    parts: EMOParts
    gradient: Tensor | None


def block_loss(
    logits: Float[Tensor, "n vocab"],
    labels: Int64[Tensor, "n"],
    kept: Bool[Tensor, "n"],
    costs: DenseCosts,
    options: EMOOptions,
    with_gradient: bool,
) -> BlockResult:
    """Losses of some tokens; those not `kept` get 0, whatever their logits and labels are.

    All is computed in float32, or in float64 for such logits.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    scores = logits.to(dtype)
    labels = torch.where(kept, labels, 0)
    lse = torch.logsumexp(scores, dim=1)
    target = scores.gather(1, labels[:, None])[:, 0]
    correct = scores.argmax(dim=1) == labels
    wrong = torch.exp(scores - lse[:, None]).scatter_(1, labels[:, None], 0.0)
    miss = wrong.sum(dim=1)
    ce = torch.where(miss < 0.5, -torch.log1p(-miss), lse - target)
    block_costs = costs.rows(labels, dtype)
    emd = torch.linalg.vecdot(wrong, block_costs)
    loss, ce_weight, emd_weight = _mix(ce, emd, options)
    gradient = None
    if with_gradient:
        gradient = block_costs.sub_(emd[:, None]).mul_(emd_weight[:, None]).add_(ce_weight[:, None]).mul_(wrong)
        of_label = -(ce_weight * miss + emd_weight * emd * torch.exp(target - lse))
        gradient.scatter_(1, labels[:, None], of_label[:, None]).masked_fill_(~kept[:, None], 0.0)
    parts = EMOParts(ce, emd, ce_weight, emd_weight, lse, correct.to(dtype))
    return BlockResult(
        torch.where(kept, loss, 0.0), EMOParts(*(torch.where(kept, part, 0.0) for part in parts)), gradient
    )


def _mix(ce: Tensor, emd: Tensor, options: EMOOptions) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, and the weights α and β of the gradients of CE and K."""
    one = torch.ones_like(ce)
    if options.mixing == "fixed":
        return ce + options.weight * emd, one, options.weight * one
    if options.mixing == "emo2":
        ratio = emd / (ce + _TINY)
        return ratio * ce + emd, ratio, one
    ratio = ce / (emd + _TINY)
    if options.mixing == "emo1_clamped":
        ratio = ratio.clamp_max(_MOST_RATIO)
    return 0.5 * (ce + ratio * emd), 0.5 * one, 0.5 * ratio
