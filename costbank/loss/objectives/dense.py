"""Objectives of costs that come from a vector for each token."""

import torch
from torch import Tensor

from costbank.loss.columns import LabelPlace, Pull, Rows, Sums
from costbank.loss.costs import DenseCosts
from costbank.loss.objectives.base import Block, Objective, of_columns, softened
from costbank.loss.soft import SoftBlock

__all__ = ["DenseEMO", "DenseGibbs", "DenseLog", "Kernel", "SoftEMO"]


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

    def measure(self, wrong: Tensor) -> Sums:
        return Sums((self.saved.mul_(wrong).sum(dim=1),))

    def value(self, rows: Rows, sums: Sums) -> Tensor:
        return (rows.miss + sums.means[0]).clamp_min(0.0)

    def gradient_(self, wrong: Tensor, rows: Rows, value: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        wrong.mul_(of_columns(scale + weight * (1 - value), rows)).add_(self.saved.mul_(of_columns(weight, rows)))
        return -weight * value * rows.hit


class SoftEMO(Objective):
    """Σ_ij p_i q_j c(i, j) = Σ p_i s_i, with the gradient p_i (s_i − D).

    The cost of moving mass without regard to where it comes from: the product coupling, which bounds the Earth Mover's
    Distance from above and is it where q is one-hot. It is not 0 for p = q.
    """

    def __init__(self, block: Block, costs: DenseCosts, soft: SoftBlock) -> None:
        super().__init__(block)
        self.costs, self.soft = costs, soft

    def read(self, scores: Tensor, labels: Tensor, label: LabelPlace) -> None:
        del label
        vectors, columns = self.costs.vectors.to(scores.dtype), self.block.columns
        mean = self.soft.mean_of(vectors)
        # The rows' own lengths say what the product of a token with itself makes of its cost, which is 0.
        own = 1.0 - torch.linalg.vector_norm(vectors, dim=1).square()
        paid = self.block.buffers.take("costs", len(scores))
        torch.mm(mean.neg(), vectors[columns.slice].T, out=paid).add_(1.0)
        self.soft.add_(paid, -self.soft.times(own, columns))
        self.paid = paid.clamp_min_(0.0)
        at_label = 1.0 - (mean * vectors[labels]).sum(dim=1) - self.soft.at_label * own[labels]
        self.at_label = at_label.clamp_min_(0.0)

    def measure(self, wrong: Tensor) -> Sums:
        return Sums((torch.mul(wrong, self.paid).sum(dim=1),))

    def value(self, rows: Rows, sums: Sums) -> Tensor:
        return sums.means[0] + rows.hit * self.at_label

    def gradient_(self, wrong: Tensor, rows: Rows, value: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        self.paid.sub_(value[:, None]).mul_(of_columns(weight, rows)).add_(of_columns(scale, rows))
        wrong.mul_(self.paid)
        return weight * rows.hit * (self.at_label - value)


class Kernel(Objective):
    """½ ‖u‖², u = Σ p_i e_i − ē_q, with the gradient p_i (⟨e_i − ē_q, u⟩ − ‖u‖²); ē_q is e_t for a label.

    For soft targets it is the product coupling without half of what p and q cost to themselves (the debiased bound of
    Genevay, Peyré & Cuturi 2018, arXiv 1706.00292, where a token without a vector has no cost to itself).
    """

    def __init__(self, block: Block, costs: DenseCosts, soft: SoftBlock | None = None) -> None:
        super().__init__(block)
        self.costs, self.soft = costs, soft

    def read(self, scores: Tensor, labels: Tensor, label: LabelPlace) -> None:
        del label
        vectors = self.costs.vectors.to(scores.dtype)
        self.vectors = vectors[self.block.columns.slice]
        self.own = self.targets = vectors[labels]
        if self.soft is not None:
            self.targets = self.soft.mean_of(vectors)

    def measure(self, wrong: Tensor) -> Sums:
        return Sums((torch.mm(wrong, self.vectors),))

    def value(self, rows: Rows, sums: Sums) -> Tensor:
        # From the label's vector: as a difference of two near unit vectors it would lose a sure token's digits.
        self.u = sums.means[0] - rows.miss[:, None] * self.own + (self.own - self.targets)
        return 0.5 * self.u.square().sum(dim=1)

    def gradient_(self, wrong: Tensor, rows: Rows, value: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        pull = self.block.buffers.take("costs", len(wrong))
        torch.mm(self.u, self.vectors.T, out=pull)
        pull.sub_(((self.u * self.targets).sum(dim=1) + 2 * value)[:, None])
        wrong.mul_(pull.mul_(of_columns(weight, rows)).add_(of_columns(scale, rows)))
        return weight * rows.hit * (((self.own - self.targets) * self.u).sum(dim=1) - 2 * value)


class DenseLog(Objective):
    """−log Σ p_i s_i, with the gradient p − a, a_i = p_i s_i / Σ_j p_j s_j.

    The sum is taken as a logarithm, since all that is probable may be unlike the label.
    """

    def __init__(self, block: Block, costs: DenseCosts) -> None:
        super().__init__(block)
        self.costs = costs

    def read(self, scores: Tensor, labels: Tensor, label: LabelPlace) -> None:
        alike = self.block.buffers.take("costs", len(scores))
        self.costs.fill(labels, self.block.columns.slice, alike)
        alike.neg_().add_(1.0).clamp_min_(0.0).log_().mul_(self.block.options.log_power).add_(scores)
        self.block.columns.put_label_(alike, label, scores.new_full((len(scores),), -torch.inf))
        self.top = alike.amax(dim=1)
        # None may be alike at all, or all that are may be another process's.
        self.alike = alike.sub_(self.top.clamp_min(torch.finfo(alike.dtype).min)[:, None]).exp_()

    def measure(self, wrong: Tensor) -> Sums:
        del wrong
        return Sums(logs=(self.top + torch.log(self.alike.sum(dim=1)),))

    def value(self, rows: Rows, sums: Sums) -> Tensor:
        value = -torch.logaddexp(-rows.ce, sums.logs[0])
        self.others = torch.exp(sums.logs[0] + value)
        return value.clamp_min(0.0)

    def gradient_(self, wrong: Tensor, rows: Rows, value: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        drawn = weight * torch.exp(self.top + rows.log_scale + value)
        wrong.mul_(of_columns(scale + weight, rows)).sub_(self.alike.mul_(drawn[:, None]))
        return weight * (self.others - rows.miss)


class DenseGibbs(Objective):
    """−Σ q_i log p_i, q = softmax(−κ / T) over all tokens, with the gradient p − q.

    The label's own energy is 0, and no other's is above it: exp(−κ_i / T) needs no largest one to be taken off.
    """

    def __init__(self, block: Block, costs: DenseCosts) -> None:
        super().__init__(block)
        self.costs = costs

    def read(self, scores: Tensor, labels: Tensor, label: LabelPlace) -> None:
        soft = self.block.buffers.take("costs", len(scores))
        self.costs.fill(labels, self.block.columns.slice, soft)
        soft.div_(-self.block.options.gibbs_temperature).exp_().masked_fill_(scores == -torch.inf, 0.0)
        self.soft = self.block.columns.without_label_(soft, label)
        # A masked token adds nothing.
        self.pull = Pull(self.soft.sum(dim=1), -torch.where(self.soft > 0, scores * self.soft, 0.0).sum(dim=1))

    def measure(self, wrong: Tensor) -> Sums:
        del wrong
        return Sums(pulls=(self.pull,))

    def value(self, rows: Rows, sums: Sums) -> Tensor:
        self.q = softened(rows, sums.pulls[0])
        return self.q.value

    def gradient_(self, wrong: Tensor, rows: Rows, value: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        del value
        wrong.mul_(of_columns(scale + weight, rows)).sub_(self.soft.mul_((weight / self.q.total)[:, None]))
        return weight * (self.q.others - rows.miss)
