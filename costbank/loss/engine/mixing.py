"""Combine cross-entropy with the value of an objective, for each token."""

import math
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
    if options.mixing in ("fixed", "interpolate"):
        weight = _value_weight(stats, options) * one
        ce_weight = one if options.mixing == "fixed" else 1 - weight
        # A term of weight 0 may be infinite.
        mixed = torch.where(ce_weight == 0, 0.0, ce_weight * ce) + torch.where(weight == 0, 0.0, weight * value)
        return Mixed(mixed, ce_weight, weight)
    if options.mixing == "emo2":
        ratio = value / (ce + _TINY)
        # If both are infinite, the ratio is 0.
        return Mixed(torch.where(ce == torch.inf, ce, ratio * ce) + value, ratio, one)
    ratio = ce / (value + _TINY)
    if options.mixing == "emo1_clamped":
        ratio = ratio.clamp_max(_MOST_RATIO)
    return Mixed(0.5 * (ce + ratio * value), 0.5 * one, 0.5 * ratio)


def _value_weight(stats: SoftmaxStats, options: EMOOptions) -> Tensor | float:
    """The weight of D: the option's, times min(1, H / log gate) where predictions have the entropy H."""
    weight = options.weight
    assert not isinstance(weight, Schedule), "the options of a call have a number as weight"
    if options.entropy_gate is None:
        return weight
    assert stats.entropy is not None
    return weight * (stats.entropy / math.log(options.entropy_gate)).clamp(0.0, 1.0)


def _ce_weight(ce: Tensor, stats: SoftmaxStats, options: EMOOptions) -> Tensor:
    """The weight of each token's cross-entropy: 1, or that of TaiLR or MixCE, which depends on p_t."""
    if options.objective == "tailr":
        gamma = options.tailr_gamma
        # p_t = exp(−CE). Beyond 80 the exponential would overflow, and the weight is 0 in float32.
        return (1 / (1 - gamma + gamma * torch.exp(ce.clamp_max(80.0)))).clamp_min(options.tailr_least)
    if options.objective == "mixce":
        return options.mixce_ratio + (1 - options.mixce_ratio) * stats.label_prob
    return torch.ones_like(ce)
