"""Combine cross-entropy with the value of an objective, for each token."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from costbank.loss.engine.softmax import SoftmaxStats
from costbank.loss.options import EMOOptions, Schedule

__all__ = ["Mixed", "mix"]

_TINY = 1e-10
_MOST_RATIO = 3.0


class Mixed(NamedTuple):
    """The loss, and the weights α of the cross-entropy's gradient and β of the value's, each [n]."""

    loss: Tensor
    ce_weight: Tensor
    value_weight: Tensor


def mix(ce: Float[Tensor, "n"], value: Float[Tensor, "n"], stats: SoftmaxStats, options: EMOOptions) -> Mixed:
    """Combine cross-entropy and value as `EMOOptions.mixing` says. Weights get no gradient."""
    one = torch.ones_like(ce)
    if options.is_cross_entropy:
        weight = _ce_weight(ce, stats, options)
        return Mixed(weight * ce, weight, 0 * one)
    if options.target_mass == "detached":
        value = value + stats.label_prob
    weight = options.weight
    assert not isinstance(weight, Schedule), "the options of a call have a number as weight"
    if options.mixing == "fixed":
        return Mixed(ce if weight == 0 else ce + weight * value, one, weight * one)
    if options.mixing == "interpolate":
        # With a weight of 0 or 1, the other term may be infinite.
        mixed = value if weight == 1 else ce if weight == 0 else (1 - weight) * ce + weight * value
        return Mixed(mixed, (1 - weight) * one, weight * one)
    if options.mixing == "emo2":
        ratio = value / (ce + _TINY)
        # If both are infinite, the ratio is 0.
        return Mixed(torch.where(ce == torch.inf, ce, ratio * ce) + value, ratio, one)
    ratio = ce / (value + _TINY)
    if options.mixing == "emo1_clamped":
        ratio = ratio.clamp_max(_MOST_RATIO)
    return Mixed(0.5 * (ce + ratio * value), 0.5 * one, 0.5 * ratio)


def _ce_weight(ce: Tensor, stats: SoftmaxStats, options: EMOOptions) -> Tensor:
    """The weight of each token's cross-entropy: 1, or that of TaiLR or MixCE, which depends on p_t."""
    if options.objective == "tailr":
        gamma = options.tailr_gamma
        # p_t = exp(−CE). Beyond 80 the exponential would overflow, and the weight is 0 in float32.
        return (1 / (1 - gamma + gamma * torch.exp(ce.clamp_max(80.0)))).clamp_min(options.tailr_least)
    if options.objective == "mixce":
        return options.mixce_ratio + (1 - options.mixce_ratio) * stats.label_prob
    return torch.ones_like(ce)
