"""Objectives of costs that come from a vector for each token."""

import torch
from torch import Tensor

from costbank.loss.columns import LabelPlace, Rows
from costbank.loss.costs import DenseCosts
from costbank.loss.objectives.base import Block, Objective, of_columns

__all__ = ["DenseEMO", "DenseGibbs", "DenseLog", "Kernel"]


class DenseEMO(Objective):
    """K = Σ p_i κ_i, with the gradient p_i (κ_i − K).

    κ_i = 1 − ⟨e_i, e_t⟩ is never made: with y_i = −p_i ⟨e_i, e_t⟩, K is the probability of a miss and Σ y_i, and the
    gradient y_i + p_i (1 − K). That is two passes less.
    """

    def __init__(self, block: Block, costs: DenseCosts) -> None:
        super().__init__(block)
        self.costs = costs

    def read(self, scores: Tensor, labels: Tensor, label: LabelPlace) -> None:
        del label
        out = self.block.buffers.take("costs", len(scores))
        self.saved = self.costs.negated_products(labels, self.block.columns.slice, out)

    def measure(self, wrong: Tensor) -> tuple[Tensor, ...]:
        return (self.saved.mul_(wrong).sum(dim=1),)

    def value(self, rows: Rows, measures: tuple[Tensor, ...]) -> Tensor:
        return (rows.miss + measures[0]).clamp_min(0.0)

    def gradient_(self, wrong: Tensor, rows: Rows, value: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        wrong.mul_(of_columns(scale + weight * (1 - value), rows)).add_(self.saved.mul_(of_columns(weight, rows)))
        return -weight * value * rows.hit


class Kernel(Objective):
    """½ ‖u‖², u = Σ p_i e_i − e_t, with the gradient p_i (⟨e_i − e_t, u⟩ − ‖u‖²)."""

    def __init__(self, block: Block, costs: DenseCosts) -> None:
        super().__init__(block)
        self.costs = costs

    def read(self, scores: Tensor, labels: Tensor, label: LabelPlace) -> None:
        del label
        self.targets = self.costs.vectors[labels].to(scores.dtype)

    def measure(self, wrong: Tensor) -> tuple[Tensor, ...]:
        vectors = self.costs.vectors.to(wrong.dtype)
        # Over the wrong tokens alone: as a difference of two near unit vectors it would lose a sure token's digits.
        self.u = torch.mm(wrong, vectors) - wrong.sum(dim=1)[:, None] * self.targets
        return (0.5 * self.u.square().sum(dim=1),)

    def value(self, rows: Rows, measures: tuple[Tensor, ...]) -> Tensor:
        del rows
        return measures[0]

    def gradient_(self, wrong: Tensor, rows: Rows, value: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        pull = self.block.buffers.take("costs", len(wrong))
        torch.mm(self.u, self.costs.vectors.to(wrong.dtype).T, out=pull)
        pull.sub_(((self.u * self.targets).sum(dim=1) + 2 * value)[:, None]).mul_(weight[:, None]).add_(scale[:, None])
        wrong.mul_(pull)
        return -weight * 2 * value * rows.hit


class DenseLog(Objective):
    """−log Σ p_i s_i, with the gradient p − a, a = softmax(z + log s).

    The same reading of the label apart as for cross-entropy gives D = CE(p) − CE(a), each exact for sure tokens.
    """

    def __init__(self, block: Block, costs: DenseCosts) -> None:
        super().__init__(block)
        self.costs = costs

    def read(self, scores: Tensor, labels: Tensor, label: LabelPlace) -> None:
        similar = self.block.buffers.take("costs", len(scores))
        self.costs.fill(labels, self.block.columns.slice, similar)
        similar.neg_().add_(1.0).clamp_min_(0.0).log_().mul_(self.block.options.log_power)
        self.block.columns.put_label_(similar, label, scores.new_zeros(len(scores)))
        similar.add_(scores)
        target = scores.gather(1, label.column)[:, 0]
        top = similar.amax(dim=1)
        torch.softmax(similar, dim=1, out=similar)
        peak = similar.amax(dim=1)
        self.drawn = self.block.columns.without_label_(similar, label)
        self.miss = self.drawn.sum(dim=1)
        self.ce = torch.where(self.miss < 0.5, -torch.log1p(-self.miss), top - target - torch.log(peak))

    def value(self, rows: Rows, measures: tuple[Tensor, ...]) -> Tensor:
        del measures
        return (rows.ce - self.ce).clamp_min(0.0)

    def gradient_(self, wrong: Tensor, rows: Rows, value: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        del value
        wrong.mul_((scale + weight)[:, None]).sub_(self.drawn.mul_(weight[:, None]))
        return weight * (self.miss - rows.miss)


class DenseGibbs(Objective):
    """−Σ q_i log p_i, q = softmax(−κ / T) over all tokens, with the gradient p − q."""

    def __init__(self, block: Block, costs: DenseCosts) -> None:
        super().__init__(block)
        self.costs = costs

    def read(self, scores: Tensor, labels: Tensor, label: LabelPlace) -> None:
        soft = self.block.buffers.take("costs", len(scores))
        self.costs.fill(labels, self.block.columns.slice, soft)
        self.block.columns.put_label_(soft, label, scores.new_zeros(len(scores)))
        soft.div_(-self.block.options.gibbs_temperature).masked_fill_(scores == -torch.inf, -torch.inf)
        torch.softmax(soft, dim=1, out=soft)
        self.soft = self.block.columns.without_label_(soft, label)
        self.others = self.soft.sum(dim=1)
        target = scores.gather(1, label.column)
        # Differences from the label's logit: what they add to its cross-entropy. A masked token adds nothing.
        ahead = torch.where(self.soft > 0, (target - scores) * self.soft, 0.0)
        self.excess = ahead.sum(dim=1)

    def value(self, rows: Rows, measures: tuple[Tensor, ...]) -> Tensor:
        del measures
        return rows.ce + self.excess

    def gradient_(self, wrong: Tensor, rows: Rows, value: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        del value
        wrong.mul_((scale + weight)[:, None]).sub_(self.soft.mul_(weight[:, None]))
        return weight * (self.others - rows.miss)
